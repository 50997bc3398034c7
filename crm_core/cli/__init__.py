"""The command line, `python -m crm_core`: a client of the HTTP API by its address and a key (docs/cli.md).

It knows the API and nothing of the hub's inside: no other module of crm_core is imported here.

main.py      the program: every group of commands, and how it ends
command.py   what all commands share: options, the hub, the three outputs
client.py    one hub over HTTP; failures.py: why it did not work, and the exit codes
output.py    data, on standard output; follow.py: a run until it ends, with its progress on standard error; decisions.py: what
             a plan would do, and an apply did
doctor.py  connections.py  sync.py  records.py  conflicts.py  runs.py  logs.py  deadletters.py: the commands
complete.py  what a shell offers while somebody types
"""
