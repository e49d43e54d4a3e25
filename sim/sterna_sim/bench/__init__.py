"""``make bench``: whole tokens through the RTL, what slots make of a pass, throughput, and the CPU engine."""
