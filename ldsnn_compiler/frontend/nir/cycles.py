"""Recurrence: which edges of a NIR graph take a timestep.

In continuous time a loop needs no delay; in timesteps, what comes back comes one step later. Of every cycle one edge
waits: the edge that leads back to where a depth-first walk from the Inputs came from, or, if that edge comes from
nodes without state that do nothing else, the one that leads into them. So in ``lif -> w_rec -> lif`` the spikes of lif
wait before ``w_rec``, whose bias acts from the first step on, as in continuous time. An explicit Delay of at least one
timestep in the cycle does the waiting, and no other edge waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ldsnn_compiler.frontend.nir.source import Edge, Net


def waiting_edges(net: Net, stateful: Callable[[str], bool], waits: Callable[[str], bool]) -> set[Edge]:
    """The edges that carry the value of one timestep before.

    ``stateful`` and ``waits`` say of a unit whether it keeps state, and whether it is itself a delay of a timestep or
    more.
    """
    return {_early(net, edge, stateful) for edge in _back_edges(net, waits)}


def _back_edges(net: Net, waits: Callable[[str], bool]) -> Iterator[Edge]:
    """Edges that lead back to a unit on the path by which a depth-first walk came to them."""
    starts = [name for name, unit in net.units.items() if unit.kind == "Input"]
    done, path = set[str](), dict[str, Iterator[str]]()
    for start in [*starts, *net.units]:
        if start in done or waits(start):
            continue
        path[start] = iter(net.targets(start))
        while path:
            name, targets = next(reversed(path.items()))
            target = next(targets, None)
            if target is None:
                done.add(name)
                del path[name]
            elif target in path:
                yield name, target
            elif target not in done and not waits(target):
                path[target] = iter(net.targets(target))


def _early(net: Net, edge: Edge, stateful: Callable[[str], bool]) -> Edge:
    """The edge moved up to the output of a unit with state, as far as nothing else hangs on the units between."""
    source, target = edge
    while not stateful(source) and len(net.sources(source)) == 1 and len(net.targets(source)) == 1:
        source, target = net.sources(source)[0], source
    return source, target


def in_order(net: Net, waiting: set[Edge], waits: Callable[[str], bool]) -> list[str]:
    """Units, each behind all that it reads in the same timestep."""
    left = {name: {a for a in net.sources(name) if (a, name) not in waiting} for name in net.units}
    for name in filter(waits, net.units):
        left[name] = set()
    order: list[str] = []
    while left:
        ready = [name for name, sources in left.items() if not sources]
        for name in ready:
            del left[name]
        for sources in left.values():
            sources.difference_update(ready)
        order += ready
    return order
