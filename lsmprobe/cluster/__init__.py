"""The cluster: both stages in pieces, on as many processes and machines as there are.

A piece (`pieces`) is planned by a pure function, and whoever does it writes a file or records of
its own on the shared filesystem, so that it may be done twice. `engines` opens what runs pieces,
`runner` hands them out, `task` starts a process for one, `worker` is that process; `stages` says
what pieces of each command are. It imports everything below it; the commands alone import it.
"""

__all__: tuple[str, ...] = ()
