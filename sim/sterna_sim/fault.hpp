// Errors of the simulated device: small vocabulary shared by the memory and register models.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>

namespace sterna {

// Keeps the first error since the last reset; what follows a broken rule is rarely worth reading.
class Fault {
public:
    __attribute__((format(printf, 3, 4))) void raise(uint64_t cycle, const char* format, ...) {
        if (raised_) return;
        raised_ = true;
        int used = std::snprintf(text_, sizeof text_, "cycle %llu", static_cast<unsigned long long>(cycle));
        if (port_ >= 0) used += std::snprintf(text_ + used, sizeof text_ - used, ", memory port %d", port_);
        used += std::snprintf(text_ + used, sizeof text_ - used, ": ");
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text_ + used, sizeof text_ - used, format, arguments);
        va_end(arguments);
    }
    void clear() { raised_ = false; }
    // What is raised from now on concerns a memory port of several; -1 for none.
    void concerns(int port) { port_ = port; }
    bool raised() const { return raised_; }
    const char* text() const { return raised_ ? text_ : ""; }

private:
    bool raised_ = false;
    int port_ = -1;
    char text_[240] = {};
};

// Half-open range of byte addresses; empty when first == last.
struct Range {
    uint64_t first = 0;
    uint64_t last = 0;
    bool touches(uint64_t address, uint64_t size) const { return address < last && address + size > first; }
};

// Queue of fixed capacity; no allocation while the clock runs.
template <typename T, unsigned Capacity>
class Queue {
public:
    bool empty() const { return count_ == 0; }
    bool full() const { return count_ == Capacity; }
    unsigned size() const { return count_; }
    T& front() { return items_[head_]; }
    void push(const T& item) { items_[(head_ + count_++) % Capacity] = item; }
    void pop() {
        head_ = (head_ + 1) % Capacity;
        --count_;
    }
    void clear() { count_ = 0; }

private:
    T items_[Capacity] = {};
    unsigned head_ = 0;
    unsigned count_ = 0;
};

// xorshift64*: true with a given probability, the same sequence for the same seed.
class Chance {
public:
    Chance(uint32_t threshold, uint64_t seed) : threshold_(threshold), state_(seed * 2 + 1) {}
    bool hit() {
        if (threshold_ == 0) return false;
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return static_cast<uint32_t>((state_ * 0x2545F4914F6CDD1DULL) >> 32) < threshold_;
    }

private:
    uint32_t threshold_;  // of 2**32
    uint64_t state_;
};

}  // namespace sterna
