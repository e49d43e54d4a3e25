// A DDR3 chip at its pins: start-up, mode registers, strobes, and what of them reaches the FPGA when.
#pragma once

#include <cstdint>

#include "../banks.hpp"
#include "../config.hpp"
#include "../fault.hpp"
#include "twin_config.hpp"

namespace sterna {

// Time is ticks, a quarter of a clock of the DRAM. Commands and writes arrive as they leave; what a lane reads is at the
// FPGA `flight` ticks after it should be at the chip, which is the whole way there and back. Undriven pins read low.
class Ddr3Pins {
public:
    Ddr3Pins(const TwinConfig& config, uint8_t* data, Fault& fault)
        : config_(config), data_(data), fault_(fault), banks_(config.chip, fault) {}

    // Before an evaluation of the model: what the FPGA's pins see at `now`.
    template <typename Pins>
    void drive(Pins& pins, int64_t now) {
        driven_ = 0;
        if (reads_.empty()) return;
        uint32_t dq = 0, dqs = 0;
        for (unsigned lane = 0; lane < LANES; ++lane) {
            if (config_.dead_lanes >> lane & 1) continue;
            for (unsigned i = 0; i < reads_.size(); ++i) {
                const Read& read = reads_.at(i);
                int64_t at = now - read.start - config_.flight[lane];
                if (at < -PREAMBLE || at >= BURST) continue;
                driven_ |= 1u << lane;
                if (at < 0) continue;
                dq |= uint32_t(data_[read.place + at / 2 * LANES + lane]) << 8 * lane;
                dqs |= uint32_t(at % CLOCK < CLOCK / 2) << lane;
            }
        }
        pins.dq = dq;
        pins.dqs = dqs;
        if (now >= reads_.front().start + BURST + LONGEST_FLIGHT) reads_.pop();
    }

    // After it: what the FPGA says at `now`.
    template <typename Pins>
    void sample(const Pins& pins, int64_t now) {
        cycle_ = now / TICKS_PER_CYCLE;
        if (pins.ck != ck_) {
            ck_ = pins.ck;
            if (ck_) clock(pins, now);
        }
        uint32_t strobes = pins.dqs__out & pins.dqs__en;
        uint32_t changed = strobes ^ strobes_;
        strobes_ = strobes;
        if (driven_) require(!(pins.dqs__en & driven_), "the FPGA drives DQS while the chip does");
        if (!writes_.empty()) {
            for (unsigned lane = 0; lane < LANES; ++lane) strobe(pins, now, lane, changed >> lane & 1);
            if (writes_.front().edges[0] == EDGES && writes_.front().edges[1] == EDGES) writes_.pop();
        }
    }

private:
    static constexpr unsigned LANES = 2;
    static constexpr int64_t CLOCK = 4, PREAMBLE = 4, BURST = 16, LONGEST_FLIGHT = 64;  // ticks
    static constexpr unsigned EDGES = 8;  // of the strobe in a burst
    static constexpr int64_t LATE = 1;    // tDQSS: the strobe of a write, to either side
    static constexpr int64_t MODE_CLOCKS = 12, CALIBRATION_CLOCKS = 512;  // tMOD, tZQinit
    static constexpr unsigned ALL_MODES = 0xF;

    struct Read {
        int64_t start;  // the first edge of the strobe, at the chip
        uint64_t place;
    };
    struct Write {
        int64_t start;
        uint64_t place;
        unsigned edges[LANES];  // that have come
    };

    template <typename Pins>
    void clock(const Pins& pins, int64_t now) {
        if (pins.cke && !cke_) require(now >= low_since_ + config_.start_up_ticks, "CKE low for less than 500 us");
        if (!pins.cke && cke_) {  // a start-up begins anew; the model knows no power-down
            low_since_ = now;
            modes_ = 0;
            calibrated_ = false;
            banks_.reset(now / CLOCK);
        }
        cke_ = pins.cke;
        bool idle = pins.cs_n || (pins.ras_n && pins.cas_n && pins.we_n);
        if (idle || !cke_) return;
        int64_t time = now / CLOCK;
        require(time >= busy_until_, "a command too soon after a mode register or a calibration");
        if (!pins.ras_n && !pins.cas_n && !pins.we_n) return mode(pins.ba, pins.a, time);
        if (pins.ras_n && pins.cas_n && !pins.we_n && (pins.a >> 10 & 1)) {  // ZQCL
            busy_until_ = time + CALIBRATION_CLOCKS;
            calibrated_ = true;
            return;
        }
        if (modes_ != ALL_MODES || !calibrated_) {  // the controller refreshes until the host takes over
            require(!pins.ras_n && !(pins.cas_n && pins.we_n), "ACT, RD or WR before mode registers and calibration");
            return;
        }
        Banks::Access access = banks_.command(time, cycle_, pins.ras_n, pins.cas_n, pins.we_n, pins.ba, pins.a);
        if (access.place == Banks::NONE) return;
        int64_t start = now + CLOCK * (access.write ? cwl_ : cl_);
        require(!writes_.full() && !reads_.full(), "more bursts than ever fit");
        if (access.write) writes_.push({start, access.place, {}});
        else reads_.push({start, access.place});
    }

    void mode(uint32_t which, uint32_t value, int64_t time) {
        busy_until_ = time + MODE_CLOCKS;
        banks_.suspend_refresh();
        if (which == 0) {
            unsigned code = (value >> 4 & 7) | (value >> 2 & 1) << 3;
            require(code >= 1 && code <= 10, "a CAS latency that MR0 does not have");
            require((value & 3) == 0, "a burst length that is not eight");
            cl_ = 4 + code;
        }
        if (which == 2) cwl_ = 5 + (value >> 3 & 7);
        modes_ |= 1u << which;
    }

    // An edge of a lane's strobe takes a beat, when a write waits for one at about this time.
    template <typename Pins>
    void strobe(const Pins& pins, int64_t now, unsigned lane, bool changed) {
        for (unsigned i = 0; i < writes_.size(); ++i) {
            Write& write = writes_.at(i);
            unsigned& edge = write.edges[lane];
            if (edge == EDGES) continue;
            int64_t due = write.start + edge * (CLOCK / 2);
            bool rises = edge % 2 == 0;
            if (changed && now >= due - LATE && bool(strobes_ >> lane & 1) == rises) {
                require((pins.dq__en >> 8 * lane & 0xFF) == 0xFF, "a strobe without driven data");
                uint64_t place = write.place + edge * LANES + lane;
                if (!(pins.dm >> lane & 1)) data_[place] = pins.dq__out >> 8 * lane;
                ++edge;
            } else {
                require(now < due + LATE, "no edge of DQS for a beat of a write");
            }
            return;
        }
    }

    void require(bool holds, const char* rule) {
        if (!holds) fault_.raise(cycle_, "DRAM: %s", rule);
    }

    const TwinConfig& config_;
    uint8_t* data_;
    Fault& fault_;
    Banks banks_;
    Ring<Read, 16> reads_;
    Ring<Write, 16> writes_;
    uint64_t cycle_ = 0;
    int64_t busy_until_ = 0;  // clocks
    int64_t low_since_ = 0;
    uint32_t strobes_ = 0, driven_ = 0;
    unsigned modes_ = 0;
    int64_t cl_ = 0, cwl_ = 0;
    bool ck_ = false, cke_ = false, calibrated_ = false;
};

}  // namespace sterna
