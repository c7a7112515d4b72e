"""The neuron's loop over time, compiled: one pass over the membranes instead of some twenty."""

from __future__ import annotations

from numba import njit, prange


@njit(parallel=True, cache=True, nogil=True)
def steps(sums, row, membrane, count, last, table, spikes, events, positive, active, membranes, flags):
    """Do what `neuron._steps_torch` does, channel by channel and neuron by neuron."""
    first_step, climbing = flags[0], flags[1] != 0
    samples, channels, positions = membrane.shape
    width = table.shape[1]
    for channel in prange(channels):
        for sample in range(samples):
            for step in range(row.shape[0]):
                source = row[step, sample]
                now = first_step + step
                level = min(now, width - 1)
                for at in range(positions):
                    u = membrane[sample, channel, at]
                    if source >= 0:
                        u += sums[source, channel, at]
                        membrane[sample, channel, at] = u
                    n = count[sample, channel, at]
                    if not climbing:
                        level = n + 1
                    if u >= table[channel, level]:
                        spikes[step, sample, channel, at] = 1
                        count[sample, channel, at] = n + 1
                        positive[step, channel] += 1
                    elif not climbing and u < table[channel, n]:
                        spikes[step, sample, channel, at] = -1
                        count[sample, channel, at] = n - 1
                    else:
                        continue
                    last[sample, channel, at] = now
                    events[step, channel, at] += 1
                    active[channel, step, sample] = True
                if membranes.shape[0] > 0:
                    for at in range(positions):
                        membranes[step, sample, channel, at] = membrane[sample, channel, at]
