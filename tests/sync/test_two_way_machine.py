"""Sync in both directions as a state machine: whatever people, workers and faults do, in which order ever, ends well."""

from hypothesis.stateful import run_state_machine_as_test

from simulation.two_way.machine import Machine, profile

EXAMPLES = 300


def test_no_order_of_acts_work_and_faults_breaks_a_promise():
    run_state_machine_as_test(Machine, settings=profile(EXAMPLES, steady=True))
