// The two zlib functions that Verilator's FST writer calls, so that waves need no library beyond the C++ compiler.
// Blocks are stored, not compressed; the writer keeps whichever is smaller, its input or this.
#pragma once

#include <cstring>

typedef unsigned long uLong;
typedef unsigned long uLongf;
typedef unsigned char Bytef;
enum { Z_OK = 0, Z_BUF_ERROR = -5 };

inline uLong compressBound(uLong size) { return size + size / 65535 * 5 + 16; }

inline int compress2(Bytef* target, uLongf* target_size, const Bytef* source, uLong size, int) {
    if (*target_size < compressBound(size)) return Z_BUF_ERROR;
    Bytef* out = target;
    *out++ = 0x78;
    *out++ = 0x01;
    uLong at = 0;
    do {
        uLong count = size - at < 65535 ? size - at : 65535;
        *out++ = at + count == size;  // final block?
        *out++ = count & 0xFF;
        *out++ = count >> 8;
        *out++ = ~count & 0xFF;
        *out++ = ~count >> 8 & 0xFF;
        std::memcpy(out, source + at, count);
        out += count;
        at += count;
    } while (at < size);
    unsigned long low = 1, high = 0;  // Adler-32
    for (uLong i = 0; i < size; ++i) {
        low = (low + source[i]) % 65521;
        high = (high + low) % 65521;
    }
    for (unsigned long half : {high, low}) {
        *out++ = half >> 8;
        *out++ = half & 0xFF;
    }
    *target_size = out - target;
    return Z_OK;
}
