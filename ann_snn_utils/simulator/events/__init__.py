"""The integer network driven by its spikes, compiled: work is done where a spike goes, and nowhere else.

The plain way is `dense.py`: every layer a convolution at every step. Yet most neurons are silent at most steps,
and a spike of ±1 needs no multiplication: it adds a row of weights to the membranes that it reaches. This room
does only that. What makes it fast is that nothing but rows of small integers, one behind the other, is read and
added.

*Vectors* (`vectors.py`). numba has no type for the processor's vectors, so there is one here: as many integers
as 64 bytes of membranes hold, 32 of int16 or 16 of int32, and the answers to comparing them. Channels lie last
in every array and are padded to whole vectors (`pitch`), so that no loop has a rest; padded channels have
thresholds that no membrane reaches.

*Spikes* (`steps.Spikes`). For each place of the map that sends any, a bit for each channel in words of 64, one
array for +1 and one for −1, and the list of these places. Finding the next spike is then one instruction, and
an empty place costs nothing.

*Rows* (`layout.py`, `rows.py`). What a place reaches are, for each kernel row, neighbouring membranes: a
stretch. Weights are stored so that the channel's weights for a stretch are neighbours too, kernel columns
mirrored. A block of a stretch is held in registers while the rows of all spikes of the place are added to it,
four at a time; a missing spike adds a row of zeros, which is cheaper than a branch. Ternary rows are added as
bytes, twice as many at once, as long as so few spikes (`crowd`) cannot leave a byte.

*Thresholds* (`steps.fire`). Up to 24 per channel: each membrane counts how many it reaches, a vector of neurons
at a time, and the net count moves one towards that. More of them, or the published neuron, which sends and
takes back at different membranes: each neuron has its upper and its lower threshold at hand, and looks new ones
up when it fires.

*The encoder* (`steps.encode_all`). Its image stays, so its spikes of all steps are found at once, and weights
of a spike that comes again in the next step are summed once.

*Types* (`layout.obstacle`, `layout.lay_out`). Bounds from weights and largest counts choose the narrowest
membranes that cannot overflow; a network that fits no 32 bits, or has real weights, is left to dense tensors.
Each combination of types is compiled once, for half a minute, and cached on the disk.

*Threads* (`loop.py`). Images are independent: groups of them run on numba's threads, each with a workspace of
its own that stays in its core's cache, through all steps of one image before the next. Totals are kept for each
group and added up at the end, so results do not depend on the number of threads.
"""
