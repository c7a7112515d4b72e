"""The encoder's spikes of all steps, and what they add up to, found in one pass over the image.

Its membranes stay while its threshold climbs: a neuron that fires fires in every step up to its last one. So the
spikes of a step are those of the next one and a few more, and so are their sums of weights.
"""

from __future__ import annotations

from numba import njit
from numba import uint64 as u64

from .firing import words_of
from .lanes import bits, filled, ones, read, total, where, width_of, write
from .row_sums import add_nested_rows


@njit(nogil=True, error_model="numpy")
def present(
    layer, to, levels, thresholds, pixels, counts, net, membrane, masks, fans, sums, spikes, synapses, effective
):  # fmt: skip
    """Run the encoder over all its steps, and sum up what each step adds to the membranes of layer `to`.

    sums: [levels · neurons of `to`], to which is added. masks: room for the spikes of one place. fans: room for
    levels · channels of a place, all 0. spikes, synapses, effective: int64 [levels], set to the spikes of each
    step, and to the synapses that they reach, all of them and those other than 0.
    """
    pitch, words, lanes, levels = u64(layer.pitch), words_of(layer), width_of(membrane), u64(levels)
    no_fans = filled(0, fans, membrane)
    line, crowd, stride = u64(to.line), u64(to.crowd), u64(to.pitch * to.positions)
    nothing = u64(layer.channels) * line
    first_reach, first_stretch, first_weight = u64(to.reach), u64(to.stretches), u64(to.weights)
    spikes[:], synapses[:], effective[:] = 0, 0, 0
    for position in range(u64(layer.positions)):
        fan, kind = u64(net.fan[u64(to.fan) + position]), u64(net.kinds[u64(to.fan) + position])
        top, most, at = u64(0), u64(0), position * pitch
        for level in range(levels):
            mask, sent = level * words, u64(0)
            for word in range(words):
                start, rise = word * u64(64), u64(0)
                vector, end = start, min(pitch, start + u64(64))
                while vector < end:
                    bank = level * pitch + vector
                    over = read(pixels, at + vector, membrane) >= read(thresholds, bank, membrane)
                    write(counts, at + vector, read(counts, at + vector, membrane) + over)
                    more = where(over, read(net.effective_fan, kind + vector, membrane), no_fans)
                    write(fans, bank, read(fans, bank, membrane) + more)
                    rise |= bits(over) << (vector - start)
                    vector += lanes
                masks[mask + word] = rise
                sent += ones(rise)
            if sent == 0:
                break
            spikes[level] += sent
            synapses[level] += sent * fan
            top, most = level + u64(1), max(most, sent)
            if level:
                # A spike of the step before that comes again is counted once.
                for word in range(words):
                    masks[mask - words + word] ^= masks[mask + word]
        if top == 0:
            continue
        here = first_reach + position
        at, last = first_stretch + u64(net.reach[here]), first_stretch + u64(net.reach[here + u64(1)])
        while at < last:
            state, size = u64(net.stretches[at]), u64(net.stretches[at + u64(1)])
            weight = first_weight + u64(net.stretches[at + u64(2)])
            at += u64(3)
            if most <= crowd:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, nothing, masks, words, top, 1)
            else:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, nothing, masks, words, top, 0)
    for level in range(levels):
        for vector in range(level * pitch, (level + u64(1)) * pitch, lanes):
            effective[level] += total(read(fans, vector, membrane))
            write(fans, vector, no_fans)


@njit(nogil=True, error_model="numpy")
def arrive(to, level, sums, membrane):
    """Add the sums of a step to the membranes of layer `to`, and clear them."""
    states, size = u64(to.states), u64(to.pitch * to.positions)
    first = u64(level) * size
    for vector in range(u64(0), size, width_of(membrane)):
        arriving = read(sums, first + vector, membrane)
        write(membrane, states + vector, read(membrane, states + vector, membrane) + arriving)
        write(sums, first + vector, filled(0, sums, membrane))
