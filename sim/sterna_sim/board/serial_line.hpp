// The two wires between a serial bridge and the FPGA, bit by bit: a start bit, eight data bits, a stop bit.
#pragma once

#include <cstdint>
#include <deque>

namespace sterna {

// Time is ticks; a bit takes any length of them, in 65536ths.
class SerialLine {
public:
    explicit SerialLine(uint32_t bit_ticks_q16) : bit_(bit_ticks_q16) {}

    std::deque<uint8_t> to_board, from_board;
    uint64_t broken = 0;  // bytes from the board without a stop bit

    // Level of the wire to the board at `now`.
    bool level(int64_t now) {
        if (now < next_) return level_;
        if (position_ == 0) {
            if (to_board.empty()) return level_ = true;
            next_q16_ = now << 16;
        }
        if (position_ == 0) level_ = false;
        else if (position_ == 9) level_ = true;
        else level_ = to_board.front() >> (position_ - 1) & 1;
        if (position_ == 9) to_board.pop_front();
        position_ = (position_ + 1) % 10;
        next_q16_ += bit_;
        next_ = next_q16_ >> 16;
        return level_;
    }

    // The wire from the board is at `level` at `now`.
    void sample(bool level, int64_t now) {
        if (receiving_ == 0) {
            if (level) return;
            sample_q16_ = (now << 16) + bit_ + bit_ / 2;  // the middle of the first data bit
            receiving_ = 9;
            return;
        }
        if (now < sample_q16_ >> 16) return;
        sample_q16_ += bit_;
        if (--receiving_) {
            byte_ = byte_ >> 1 | level << 7;
            return;
        }
        if (level) from_board.push_back(byte_);
        else ++broken;
    }

private:
    int64_t bit_;
    bool level_ = true;
    unsigned position_ = 0, receiving_ = 0;
    int64_t next_ = 0, next_q16_ = 0, sample_q16_ = 0;
    uint8_t byte_ = 0;
};

}  // namespace sterna
