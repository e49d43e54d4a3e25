// Banks and rows of a DDR3 chip, and the rules of its data sheet for commands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "config.hpp"
#include "fault.hpp"

namespace sterna {

// Any distance of commands below the data sheet's is a fault. Times are clocks of the DRAM; a byte's place is row, bank,
// column, the order in which the controller uses an address.
class Banks {
public:
    static constexpr uint64_t NONE = ~uint64_t(0);

    // A column command: where its burst of eight columns begins, each of COLUMN_BYTES.
    struct Access {
        uint64_t place = NONE;
        bool write = false;
    };
    static constexpr unsigned COLUMN_BYTES = 2;

    Banks(const ChipConfig& config, Fault& fault) : config_(config), fault_(fault) { reset(0); }

    // As after power-up at `time`: nothing open.
    void reset(int64_t time) {
        for (Bank& bank : banks_) bank = Bank{};
        std::fill(std::begin(activations_), std::end(activations_), LONG_AGO);
        last_column_ = last_read_ = last_write_ = LONG_AGO;
        busy_until_ = 0;
        last_refresh_ = time;
    }

    // Ask for no refresh until there is one: someone else is in charge, such as a host that levels reads.
    void suspend_refresh() { last_refresh_ = NEVER; }

    // What the pins say at a clock edge with CS# low; `cycle` is for messages.
    Access command(int64_t time, uint64_t cycle, bool ras_n, bool cas_n, bool we_n, uint32_t bank, uint32_t address) {
        cycle_ = cycle;
        if (ras_n && cas_n && we_n) return {};
        require(time - last_refresh_ <= (POSTPONED_REFRESHES + 1) * int64_t(config_.trefi), "no refresh for 9 tREFI", bank);
        require(time >= busy_until_, "a command during a refresh or calibration", bank);
        bool all = address >> 10 & 1;
        if (!ras_n && cas_n && we_n) activate(time, bank, address);
        if (!ras_n && cas_n && !we_n)
            for (uint32_t index = 0; index < (1u << config_.bank_bits); ++index)
                if (all || index == bank) precharge(time, index);
        if (!ras_n && !cas_n && we_n) {
            last_refresh_ = time;
            occupy(time, config_.trfc);
        }
        if (ras_n && cas_n && !we_n) occupy(time, CALIBRATION_CLOCKS);
        if (ras_n && !cas_n) return {column(time, bank, address & 0x3FF, !we_n, all), !we_n};
        return {};
    }

private:
    static constexpr int64_t LONG_AGO = -(int64_t(1) << 40);
    static constexpr int64_t NEVER = int64_t(1) << 62;  // later than any time
    static constexpr int64_t BURST_CLOCKS = 4;
    static constexpr int64_t CALIBRATION_CLOCKS = 64;  // tZQCS
    static constexpr int POSTPONED_REFRESHES = 8;

    struct Bank {
        bool open = false;
        uint32_t row = 0;
        int64_t activated = LONG_AGO, read = LONG_AGO, written = LONG_AGO, precharged = LONG_AGO;
    };

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

    uint64_t column(int64_t time, uint32_t index, uint32_t column, bool write, bool auto_precharge) {
        Bank& bank = banks_[index];
        require(bank.open, write ? "WR to a closed bank" : "RD of a closed bank", index);
        require(time >= bank.activated + config_.trcd, "RD or WR before tRCD", index);
        require(time >= last_column_ + config_.tccd, "RD or WR before tCCD", index);
        last_column_ = time;
        if (write) {
            int64_t turn = int64_t(config_.cl) + config_.tccd + 2 - config_.cwl;
            require(time >= last_read_ + turn, "WR too soon after RD", index);
            last_write_ = bank.written = time;
        } else {
            require(time >= write_end(last_write_) + config_.twtr, "RD before tWTR", index);
            last_read_ = bank.read = time;
        }
        if (auto_precharge) {
            bank.open = false;
            int64_t recovered = write ? write_end(time) + config_.twr : time + config_.trtp;
            bank.precharged = std::max(bank.activated + config_.tras, recovered);
        }
        uint64_t row = uint64_t(bank.row) << config_.bank_bits | index;
        return (row << config_.column_bits | (column & ~7u)) * COLUMN_BYTES;
    }

    // REF and ZQCS.
    void occupy(int64_t time, int64_t clocks) {
        for (uint32_t index = 0; index < (1u << config_.bank_bits); ++index) {
            require(!banks_[index].open, "REF or ZQCS with a bank open", index);
            require(time >= banks_[index].precharged + config_.trp, "REF or ZQCS before tRP", index);
        }
        busy_until_ = time + clocks;
    }

    void require(bool holds, const char* rule, uint32_t bank) {
        if (!holds) fault_.raise(cycle_, "DRAM bank %u: %s", bank, rule);
    }

    const ChipConfig config_;
    Fault& fault_;
    uint64_t cycle_ = 0;
    Bank banks_[16];
    int64_t activations_[4];  // the last four, the latest first
    int64_t last_column_, last_read_, last_write_, last_refresh_, busy_until_;
};

}  // namespace sterna
