"""Pull: from a remote feed into the records, page by page, under the lease of the entity's state row. The steps are in
`pulling/`.

The order of I/O is that of docs/architecture.md: the first page is fetched before the lease is taken, so that a pull
with nothing new costs one read and one write; a checkpoint is saved only after its batch is applied; whoever loses
the row's ETag stops.
"""

from crm_core.ports import measured
from crm_core.sync import failures
from crm_core.sync.engine import Engine, Job
from crm_core.sync.planning.base import NO_PLAN
from crm_core.sync.planning.carrying import Carrying
from crm_core.sync.pulling.puller import Puller

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, records are applied one by one, so that one that raises does not stop the rest."""


def pull(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a pull; what is not done continues in another message.

    Raises what is a bug or trouble of our own storage; the message then comes again. Failures of the remote system
    are recorded where people see them, and do not raise.
    """
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if opened is None or states is None or job.entity not in states.entities:
        if run is not None and not run.ended:
            failures.end_run(engine, job.tenant, run, "NotFound", "The connection or its entity was deleted.")
        return
    if run is not None and run.ended and states.entities[job.entity].lease_run != run.id:
        return
    careful = deliveries >= CAREFUL_DELIVERY
    with measured() as meter:
        if run is not None and run.mode == "apply":
            plan = engine.runs.get(job.tenant, run.of)
            if plan is None:
                if not run.ended:
                    failures.end_run(engine, job.tenant, run, "NotFound", NO_PLAN)
                failures.release_lease(engine, job)
                return
            Carrying(engine, job, lane, opened, states, run, meter, careful=careful, plan=plan).work()
        else:
            Puller(engine, job, lane, opened, states, run, meter, careful=careful).work()
