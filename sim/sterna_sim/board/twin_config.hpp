// What Python chooses about a board twin; mirrors the structure of twin.py.
#pragma once

#include <cstdint>

#include "../config.hpp"

namespace sterna {

constexpr int TICKS_PER_CYCLE = 8;  // a clock of the memory is four ticks, one of the system two of these

struct TwinConfig {
    uint64_t bytes;
    ChipConfig chip;
    uint32_t flight[2];       // of each byte lane, ticks
    uint32_t dead_lanes;      // that never answer
    uint32_t clock_half_ticks;  // of the clock pin
    uint32_t bit_ticks_q16;   // a bit on the serial line, ticks << 16
    int64_t start_up_ticks;     // CKE is low at first
};

// Fixed capacity, with a look at everything in it.
template <typename T, unsigned Capacity>
class Ring {
public:
    bool empty() const { return count_ == 0; }
    bool full() const { return count_ == Capacity; }
    unsigned size() const { return count_; }
    T& at(unsigned index) { return items_[(head_ + index) % Capacity]; }
    T& front() { return at(0); }
    void push(const T& item) { items_[(head_ + count_++) % Capacity] = item; }
    void pop() {
        head_ = (head_ + 1) % Capacity;
        --count_;
    }

private:
    T items_[Capacity] = {};
    unsigned head_ = 0, count_ = 0;
};

}  // namespace sterna
