// The bytes of a simulated memory.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace sterna {

class Store {
public:
    explicit Store(uint64_t bytes) : bytes_(bytes) {
        // Pages come into being when they are written, so a large memory costs what is used of it.
        void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<uint8_t*>(pages);
    }
    ~Store() { munmap(data_, bytes_); }
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    uint8_t* data() { return data_; }
    bool holds(uint64_t address, uint64_t size) const { return size <= bytes_ && address <= bytes_ - size; }

private:
    uint64_t bytes_;
    uint8_t* data_;
};

}  // namespace sterna
