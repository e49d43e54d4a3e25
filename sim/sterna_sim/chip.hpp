// A DDR3 chip with its PHY, seen from the controller's DFI: contents, latencies, and the rules of the data sheet.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "banks.hpp"
#include "config.hpp"
#include "fault.hpp"

namespace sterna {

// Simulated: banks and rows (Banks), read and write latency of the PHY in whole cycles. Not simulated: pins, strobes,
// delays and levels, hence no start-up and no read leveling; every read arrives as it should (board/ has all of these).
class Chip {
public:
    static constexpr unsigned PHASES = 2;
    static constexpr unsigned PHASE_BYTES = 8;  // two edges of two clocks, 16 bits each
    static constexpr unsigned BURST_BYTES = PHASES * PHASE_BYTES;

    Chip(const ChipConfig& config, uint8_t* data, Fault& fault)
        : config_(config), data_(data), banks_(config, fault) { reset(); }

    // As after power-up: nothing open, nothing under way; contents stay.
    void reset() {
        banks_.reset(static_cast<int64_t>(now_ * PHASES));
        std::fill(std::begin(reads_), std::end(reads_), Banks::NONE);
        std::fill(std::begin(writes_), std::end(writes_), Banks::NONE);
    }

    // DFI pins have settled before the clock edge. `cycle` is for messages.
    template <typename Dfi>
    void sample(const Dfi& dfi, uint64_t cycle) {
        if (!dfi.dfi0_cs_n)
            command(0, cycle, dfi.dfi0_ras_n, dfi.dfi0_cas_n, dfi.dfi0_we_n, dfi.dfi0_bank, dfi.dfi0_address);
        if (!dfi.dfi1_cs_n)
            command(1, cycle, dfi.dfi1_ras_n, dfi.dfi1_cas_n, dfi.dfi1_we_n, dfi.dfi1_bank, dfi.dfi1_address);
        uint64_t& place = writes_[now_ % SLOTS];
        if (place != Banks::NONE) {
            store(place, &dfi.dfi0_wrdata, dfi.dfi0_wrdata_mask);
            store(place + PHASE_BYTES, &dfi.dfi1_wrdata, dfi.dfi1_wrdata_mask);
            place = Banks::NONE;
        }
    }

    // After the clock edge: read data of the next cycle.
    template <typename Dfi>
    void drive(Dfi& dfi) {
        ++now_;
        uint64_t& place = reads_[now_ % SLOTS];
        dfi.dfi0_rddata_valid = dfi.dfi1_rddata_valid = place != Banks::NONE;
        if (place == Banks::NONE) return;
        std::memcpy(&dfi.dfi0_rddata, data_ + place, PHASE_BYTES);
        std::memcpy(&dfi.dfi1_rddata, data_ + place + PHASE_BYTES, PHASE_BYTES);
        place = Banks::NONE;
    }

private:
    static constexpr unsigned SLOTS = 64;  // more than any latency

    void command(unsigned phase, uint64_t cycle, bool ras_n, bool cas_n, bool we_n, uint32_t bank, uint32_t address) {
        int64_t time = static_cast<int64_t>(now_ * PHASES + phase);
        Banks::Access access = banks_.command(time, cycle, ras_n, cas_n, we_n, bank, address);
        if (access.place == Banks::NONE) return;
        if (access.write) writes_[(now_ + config_.write_latency) % SLOTS] = access.place;
        else reads_[(now_ + config_.read_latency) % SLOTS] = access.place;
    }

    void store(uint64_t place, const void* data, uint32_t mask) {
        const auto* bytes = static_cast<const uint8_t*>(data);
        for (unsigned i = 0; i < PHASE_BYTES; ++i)
            if (!(mask >> i & 1)) data_[place + i] = bytes[i];
    }

    ChipConfig config_;
    uint8_t* data_;
    Banks banks_;
    uint64_t now_ = 0;  // cycles
    uint64_t reads_[SLOTS], writes_[SLOTS];  // by the cycle in which data moves
};

}  // namespace sterna
