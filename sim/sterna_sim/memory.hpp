// AXI4 memory behind the accelerator's memory port: latency, data rate, stalls, protocol checks.
#pragma once

#include <cstdint>
#include <cstring>

#include "Vsterna.h"
#include "fault.hpp"

namespace sterna {

enum Response : uint8_t { OKAY = 0, SLVERR = 2, DECERR = 3 };

// Mirrors `_Config` in device.py.
struct MemoryConfig {
    uint64_t bytes;
    uint64_t seed;
    uint32_t latency;            // cycles from the address handshake to the first data beat (or the write response)
    uint32_t beats_numerator;    // a direction moves at most numerator beats
    uint32_t beats_denominator;  // in denominator cycles
    uint32_t stall_threshold;    // chance of a stall on a channel in a cycle, of 2**32
    uint32_t refresh_interval;   // every so many cycles (0: never) ...
    uint32_t refresh_cycles;     // ... no data moves for so many cycles
};

struct MemoryCounters {
    uint64_t read_bursts = 0, read_beats = 0, write_bursts = 0, write_beats = 0, last_transfer = 0;
};

// Gives a beat whenever `numerator / denominator` of a cycle's worth has been saved up, at most one beat ahead.
class Rate {
public:
    Rate(uint32_t numerator, uint32_t denominator) : numerator_(numerator), denominator_(denominator) {}
    void step() {
        if (credit_ < denominator_) credit_ += numerator_;
    }
    bool ready() const { return credit_ >= denominator_; }
    void take() { credit_ -= denominator_; }

private:
    uint32_t numerator_, denominator_, credit_ = 0;
};

// One cycle is: pins settle, sample() looks at the handshakes without touching a pin, the clock
// rises, drive() sets the pins of the next cycle.
class AxiMemory {
public:
    static constexpr unsigned BEAT_BYTES = sizeof(Vsterna::m_axi_rdata);
    static constexpr unsigned QUEUE = 64;  // bursts waiting in each direction

    AxiMemory(const MemoryConfig& config, uint8_t* store, Fault& fault)
        : config_(config), store_(store), fault_(fault), chance_(config.stall_threshold, config.seed),
          read_rate_(config.beats_numerator, config.beats_denominator),
          write_rate_(config.beats_numerator, config.beats_denominator) {}

    Range failing_reads, failing_writes;
    MemoryCounters counters;

    // Forget bursts in flight; contents stay.
    void reset(Vsterna& top) {
        reads_.clear();
        writes_.clear();
        responses_.clear();
        held_read_ = held_write_ = Address{};
        held_data_valid_ = read_taken_ = response_taken_ = false;
        top.m_axi_arready = top.m_axi_rvalid = top.m_axi_awready = top.m_axi_wready = top.m_axi_bvalid = 0;
    }

    void sample(Vsterna& top, uint64_t cycle) {
        sample_read(top, cycle);
        sample_write(top, cycle);
    }

    void drive(Vsterna& top, uint64_t cycle) {
        bool refreshing = config_.refresh_interval && cycle % config_.refresh_interval < config_.refresh_cycles;
        if (!refreshing) {
            read_rate_.step();
            write_rate_.step();
        }
        drive_read(top, cycle, refreshing);
        drive_write(top, cycle, refreshing);
    }

private:
    struct Address {
        uint64_t address = 0;
        uint32_t length = 0, size = 0, burst = 0;
        bool valid = false;
        bool operator==(const Address& other) const {
            return valid == other.valid && address == other.address && length == other.length && size == other.size &&
                   burst == other.burst;
        }
    };
    struct Burst {
        uint64_t address;  // of the next beat
        uint64_t due;      // first cycle in which data may move
        uint32_t beats;    // still to come
        uint8_t response;  // worst so far (writes)
    };
    struct Reply {
        uint64_t due;
        uint8_t response;
    };

    uint8_t respond(const Range& failing, uint64_t address) const {
        if (address > config_.bytes - BEAT_BYTES) return DECERR;
        return failing.touches(address, BEAT_BYTES) ? SLVERR : OKAY;
    }

    // Checks one address channel; `held` is the request that was not accepted in the last cycle.
    void check(const char* channel, const Address& now, Address& held, bool ready, uint64_t cycle) {
        if (held.valid && !(held == now)) fault_.raise(cycle, "%s changed or dropped before it was accepted", channel);
        held = now;
        held.valid = now.valid && !ready;
        if (!now.valid) return;
        auto address = static_cast<unsigned long long>(now.address);
        uint64_t bytes = uint64_t(now.length + 1) * BEAT_BYTES;
        if (now.burst != 1) fault_.raise(cycle, "%s burst type %u is not INCR (address 0x%llx)", channel, now.burst, address);
        if (1u << now.size != BEAT_BYTES)
            fault_.raise(cycle, "%s size %u is not the beat of %u bytes (address 0x%llx)", channel, now.size, BEAT_BYTES, address);
        if (now.address % BEAT_BYTES) fault_.raise(cycle, "%s address 0x%llx is not aligned to a beat", channel, address);
        if (now.address / 4096 != (now.address + bytes - 1) / 4096)
            fault_.raise(cycle, "%s burst of %u beats at 0x%llx crosses a 4 KiB boundary", channel, now.length + 1, address);
    }

    void sample_read(Vsterna& top, uint64_t cycle) {
        if (top.m_axi_arvalid || held_read_.valid) {
            Address now{top.m_axi_araddr, top.m_axi_arlen, top.m_axi_arsize, top.m_axi_arburst, bool(top.m_axi_arvalid)};
            check("AR", now, held_read_, top.m_axi_arready, cycle);
            if (now.valid && top.m_axi_arready) {
                reads_.push({now.address, cycle + config_.latency, now.length + 1, OKAY});
                ++counters.read_bursts;
                counters.last_transfer = cycle;
            }
        }
        if (top.m_axi_rvalid && top.m_axi_rready) {
            read_taken_ = true;
            ++counters.read_beats;
            counters.last_transfer = cycle;
        }
    }

    void drive_read(Vsterna& top, uint64_t cycle, bool refreshing) {
        top.m_axi_arready = !reads_.full() && !chance_.hit();
        if (read_taken_) top.m_axi_rvalid = read_taken_ = false;
        if (top.m_axi_rvalid || reads_.empty() || refreshing) return;
        Burst& burst = reads_.front();
        if (burst.due > cycle + 1 || !read_rate_.ready() || chance_.hit()) return;
        read_rate_.take();
        uint8_t response = respond(failing_reads, burst.address);
        if (response == OKAY)
            std::memcpy(&top.m_axi_rdata, store_ + burst.address, BEAT_BYTES);
        else
            std::memset(&top.m_axi_rdata, 0, BEAT_BYTES);
        top.m_axi_rresp = response;
        top.m_axi_rlast = burst.beats == 1;
        top.m_axi_rvalid = 1;
        burst.address += BEAT_BYTES;
        if (--burst.beats == 0) reads_.pop();
    }

    void sample_write(Vsterna& top, uint64_t cycle) {
        if (top.m_axi_awvalid || held_write_.valid) {
            Address now{top.m_axi_awaddr, top.m_axi_awlen, top.m_axi_awsize, top.m_axi_awburst, bool(top.m_axi_awvalid)};
            check("AW", now, held_write_, top.m_axi_awready, cycle);
            if (now.valid && top.m_axi_awready) {
                writes_.push({now.address, cycle, now.length + 1, OKAY});
                ++counters.write_bursts;
                counters.last_transfer = cycle;
            }
        }
        if (top.m_axi_wvalid || held_data_valid_) sample_data(top, cycle);
        if (top.m_axi_bvalid && top.m_axi_bready) {
            response_taken_ = true;
            counters.last_transfer = cycle;
        }
    }

    void sample_data(Vsterna& top, uint64_t cycle) {
        uint8_t strobe[16] = {};
        std::memcpy(strobe, &top.m_axi_wstrb, sizeof top.m_axi_wstrb);
        if (held_data_valid_ &&
            (!top.m_axi_wvalid || held_last_ != top.m_axi_wlast || std::memcmp(held_strobe_, strobe, sizeof strobe) ||
             std::memcmp(held_data_, &top.m_axi_wdata, BEAT_BYTES)))
            fault_.raise(cycle, "W changed or dropped before it was accepted");
        held_data_valid_ = top.m_axi_wvalid && !top.m_axi_wready;
        if (held_data_valid_) {
            std::memcpy(held_data_, &top.m_axi_wdata, BEAT_BYTES);
            std::memcpy(held_strobe_, strobe, sizeof strobe);
            held_last_ = top.m_axi_wlast;
        }
        if (!top.m_axi_wvalid || !top.m_axi_wready) return;
        write_rate_.take();
        Burst& burst = writes_.front();
        uint8_t response = respond(failing_writes, burst.address);
        if (response == OKAY) {
            const auto* data = reinterpret_cast<const uint8_t*>(&top.m_axi_wdata);
            for (unsigned i = 0; i < BEAT_BYTES; ++i)
                if (strobe[i / 8] >> (i % 8) & 1) store_[burst.address + i] = data[i];
        }
        if (response > burst.response) burst.response = response;
        if (bool(top.m_axi_wlast) != (burst.beats == 1))
            fault_.raise(cycle, "WLAST is %u with %u beats of the burst to come", unsigned(top.m_axi_wlast), burst.beats - 1);
        burst.address += BEAT_BYTES;
        ++counters.write_beats;
        counters.last_transfer = cycle;
        if (--burst.beats) return;
        responses_.push({cycle + config_.latency, burst.response});
        writes_.pop();
    }

    void drive_write(Vsterna& top, uint64_t cycle, bool refreshing) {
        top.m_axi_awready = writes_.size() + responses_.size() < QUEUE && !chance_.hit();
        top.m_axi_wready = !writes_.empty() && !refreshing && write_rate_.ready() && !chance_.hit();
        if (response_taken_) top.m_axi_bvalid = response_taken_ = false;
        if (top.m_axi_bvalid || responses_.empty() || responses_.front().due > cycle + 1 || chance_.hit()) return;
        top.m_axi_bresp = responses_.front().response;
        top.m_axi_bvalid = 1;
        responses_.pop();
    }

    MemoryConfig config_;
    uint8_t* store_;
    Fault& fault_;
    Chance chance_;
    Rate read_rate_, write_rate_;
    Queue<Burst, QUEUE> reads_, writes_;
    Queue<Reply, QUEUE> responses_;
    Address held_read_, held_write_;
    bool held_data_valid_ = false, held_last_ = false, read_taken_ = false, response_taken_ = false;
    uint8_t held_data_[BEAT_BYTES] = {}, held_strobe_[16] = {};
};

}  // namespace sterna
