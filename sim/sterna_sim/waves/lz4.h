// The two LZ4 functions that Verilator's FST writer calls, so that waves need no library beyond the C++ compiler.
// Block format: token (literal count, match length - 4), literals, two-byte offset; the last five bytes are literals.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

// Greedy, one candidate a position. Returns the bytes written, 0 when `capacity` is below the bound.
inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
    constexpr int MIN_MATCH = 4, TAIL = 12, HASH_BITS = 12, LAST_LITERALS = 5;
    if (capacity < LZ4_compressBound(size)) return 0;
    const auto* in = reinterpret_cast<const uint8_t*>(source);
    auto* out = reinterpret_cast<uint8_t*>(target);
    auto length = [&](int extra) {  // what exceeds the four bits of the token
        for (extra -= 15; extra >= 255; extra -= 255) *out++ = 255;
        *out++ = static_cast<uint8_t>(extra);
    };
    auto sequence = [&](int from, int literals, int offset, int match) {
        int extra = match ? match - MIN_MATCH : 0;
        *out++ = static_cast<uint8_t>((literals < 15 ? literals : 15) << 4 | (extra < 15 ? extra : 15));
        if (literals >= 15) length(literals);
        std::memcpy(out, in + from, literals);
        out += literals;
        if (!match) return;
        *out++ = offset & 0xFF;
        *out++ = offset >> 8;
        if (extra >= 15) length(extra);
    };
    std::vector<int> seen(1 << HASH_BITS, -1);
    int anchor = 0;
    for (int at = 0; at + TAIL < size;) {
        uint32_t word, other;
        std::memcpy(&word, in + at, 4);
        int& slot = seen[word * 2654435761u >> (32 - HASH_BITS)];
        int candidate = slot;
        slot = at;
        if (candidate >= 0) std::memcpy(&other, in + candidate, 4);
        if (candidate < 0 || at - candidate > 65535 || other != word) {
            ++at;
            continue;
        }
        int match = MIN_MATCH;
        while (at + match < size - LAST_LITERALS && in[candidate + match] == in[at + match]) ++match;
        sequence(anchor, at - anchor, at - candidate, match);
        at += match;
        anchor = at;
    }
    sequence(anchor, size - anchor, 0, 0);
    return static_cast<int>(reinterpret_cast<char*>(out) - target);
}
