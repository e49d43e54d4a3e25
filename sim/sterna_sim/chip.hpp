// A DDR3 chip with its PHY, seen from the controller's DFI: contents, latencies, and the rules of the data sheet.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "config.hpp"
#include "fault.hpp"

namespace sterna {

// Simulated: banks and rows, commands in their order and distance (any distance below the data sheet's is a fault), read
// and write latency of the PHY in whole cycles. Not simulated: pins, strobes, delays and levels, hence no start-up and
// no read leveling; every read arrives as it should.
//
// A byte's place is row, bank, column, the order in which the controller uses an address.
class Chip {
public:
    static constexpr unsigned PHASES = 2;
    static constexpr unsigned PHASE_BYTES = 8;  // two edges of two clocks, 16 bits each
    static constexpr unsigned BURST_BYTES = PHASES * PHASE_BYTES;

    Chip(const ChipConfig& config, uint8_t* data, Fault& fault) : config_(config), data_(data), fault_(fault) { reset(); }

    // As after power-up: nothing open, nothing under way; contents stay.
    void reset() {
        for (Bank& bank : banks_) bank = Bank{};
        std::fill(std::begin(activations_), std::end(activations_), LONG_AGO);
        std::fill(std::begin(reads_), std::end(reads_), NONE);
        std::fill(std::begin(writes_), std::end(writes_), NONE);
        last_column_ = last_read_ = last_write_ = LONG_AGO;
        busy_until_ = 0;
        last_refresh_ = now_ * PHASES;
    }

    // DFI pins have settled before the clock edge. `cycle` is for messages.
    template <typename Dfi>
    void sample(const Dfi& dfi, uint64_t cycle) {
        cycle_ = cycle;
        command(0, dfi.dfi0_cs_n, dfi.dfi0_ras_n, dfi.dfi0_cas_n, dfi.dfi0_we_n, dfi.dfi0_bank, dfi.dfi0_address);
        command(1, dfi.dfi1_cs_n, dfi.dfi1_ras_n, dfi.dfi1_cas_n, dfi.dfi1_we_n, dfi.dfi1_bank, dfi.dfi1_address);
        uint64_t& place = writes_[now_ % SLOTS];
        if (place != NONE) {
            store(place, &dfi.dfi0_wrdata, dfi.dfi0_wrdata_mask);
            store(place + PHASE_BYTES, &dfi.dfi1_wrdata, dfi.dfi1_wrdata_mask);
            place = NONE;
        }
    }

    // After the clock edge: read data of the next cycle.
    template <typename Dfi>
    void drive(Dfi& dfi) {
        ++now_;
        uint64_t& place = reads_[now_ % SLOTS];
        dfi.dfi0_rddata_valid = dfi.dfi1_rddata_valid = place != NONE;
        if (place == NONE) return;
        std::memcpy(&dfi.dfi0_rddata, data_ + place, PHASE_BYTES);
        std::memcpy(&dfi.dfi1_rddata, data_ + place + PHASE_BYTES, PHASE_BYTES);
        place = NONE;
    }

private:
    static constexpr int64_t LONG_AGO = -(int64_t(1) << 40);
    static constexpr uint64_t NONE = ~uint64_t(0);
    static constexpr unsigned SLOTS = 64;     // more than any latency
    static constexpr int64_t BURST_CLOCKS = 4;
    static constexpr int64_t CALIBRATION_CLOCKS = 64;  // tZQCS
    static constexpr int POSTPONED_REFRESHES = 8;

    // Times are clocks of the DRAM.
    struct Bank {
        bool open = false;
        uint32_t row = 0;
        int64_t activated = LONG_AGO, read = LONG_AGO, written = LONG_AGO, precharged = LONG_AGO;
    };

    void command(unsigned phase, bool cs_n, bool ras_n, bool cas_n, bool we_n, uint32_t bank, uint32_t address) {
        if (cs_n || (ras_n && cas_n && we_n)) return;
        int64_t time = static_cast<int64_t>(now_ * PHASES + phase);
        require(time - last_refresh_ <= (POSTPONED_REFRESHES + 1) * int64_t(config_.trefi), "no refresh for 9 tREFI", bank);
        require(time >= busy_until_, "a command during a refresh or calibration", bank);
        bool all = address >> 10 & 1;
        if (!ras_n && cas_n && we_n) return activate(time, bank, address);
        if (!ras_n && cas_n && !we_n) {
            for (uint32_t index = 0; index < (1u << config_.bank_bits); ++index)
                if (all || index == bank) precharge(time, index);
            return;
        }
        if (ras_n && !cas_n) return column(time, bank, address & 0x3FF, !we_n, all);
        if (!ras_n && !cas_n && we_n) {
            last_refresh_ = time;
            return occupy(time, config_.trfc);
        }
        if (ras_n && cas_n && !we_n) occupy(time, CALIBRATION_CLOCKS);
    }

    void activate(int64_t time, uint32_t index, uint32_t row) {
        Bank& bank = banks_[index];
        require(!bank.open, "ACT of an open bank", index);
        require(time >= bank.precharged + config_.trp, "ACT before tRP", index);
        require(time >= bank.activated + config_.trc, "ACT before tRC", index);
        require(time >= activations_[0] + config_.trrd, "ACT before tRRD", index);
        require(time >= activations_[3] + config_.tfaw, "ACT before tFAW", index);
        for (int i = 3; i > 0; --i) activations_[i] = activations_[i - 1];
        activations_[0] = bank.activated = time;
        bank.open = true;
        bank.row = row;
    }

    int64_t write_end(int64_t time) const { return time + config_.cwl + BURST_CLOCKS; }

    void precharge(int64_t time, uint32_t index) {
        Bank& bank = banks_[index];
        if (!bank.open) return;
        require(time >= bank.activated + config_.tras, "PRE before tRAS", index);
        require(time >= bank.read + config_.trtp, "PRE before tRTP", index);
        require(time >= write_end(bank.written) + config_.twr, "PRE before tWR", index);
        bank.open = false;
        bank.precharged = time;
    }

    void column(int64_t time, uint32_t index, uint32_t column, bool write, bool auto_precharge) {
        Bank& bank = banks_[index];
        require(bank.open, write ? "WR to a closed bank" : "RD of a closed bank", index);
        require(time >= bank.activated + config_.trcd, "RD or WR before tRCD", index);
        require(time >= last_column_ + config_.tccd, "RD or WR before tCCD", index);
        uint64_t row = uint64_t(bank.row) << config_.bank_bits | index;
        uint64_t place = (row << config_.column_bits | (column & ~7u)) * 2;
        last_column_ = time;
        if (write) {
            int64_t turn = int64_t(config_.cl) + config_.tccd + 2 - config_.cwl;
            require(time >= last_read_ + turn, "WR too soon after RD", index);
            last_write_ = bank.written = time;
            writes_[(now_ + config_.write_latency) % SLOTS] = place;
        } else {
            require(time >= write_end(last_write_) + config_.twtr, "RD before tWTR", index);
            last_read_ = bank.read = time;
            reads_[(now_ + config_.read_latency) % SLOTS] = place;
        }
        if (!auto_precharge) return;
        bank.open = false;
        int64_t recovered = write ? write_end(time) + config_.twr : time + config_.trtp;
        bank.precharged = std::max(bank.activated + config_.tras, recovered);
    }

    // REF and ZQCS.
    void occupy(int64_t time, int64_t clocks) {
        for (uint32_t index = 0; index < (1u << config_.bank_bits); ++index) {
            require(!banks_[index].open, "REF or ZQCS with a bank open", index);
            require(time >= banks_[index].precharged + config_.trp, "REF or ZQCS before tRP", index);
        }
        busy_until_ = time + clocks;
    }

    void store(uint64_t place, const void* data, uint32_t mask) {
        const auto* bytes = static_cast<const uint8_t*>(data);
        for (unsigned i = 0; i < PHASE_BYTES; ++i)
            if (!(mask >> i & 1)) data_[place + i] = bytes[i];
    }

    void require(bool holds, const char* rule, uint32_t bank) {
        if (!holds) fault_.raise(cycle_, "DRAM bank %u: %s", bank, rule);
    }

    ChipConfig config_;
    uint8_t* data_;
    Fault& fault_;
    uint64_t now_ = 0, cycle_ = 0;  // cycles; cycles of the system, for messages
    Bank banks_[16];
    int64_t activations_[4];  // the last four, the latest first
    int64_t last_column_, last_read_, last_write_, last_refresh_, busy_until_;
    uint64_t reads_[SLOTS], writes_[SLOTS];  // by the cycle in which data moves
};

}  // namespace sterna
