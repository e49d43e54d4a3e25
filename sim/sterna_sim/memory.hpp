// AXI4 memory behind the accelerator's memory port: contents, responses, stalls; timing is a part of its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "axi_rules.hpp"
#include "banked.hpp"
#include "ddr3.hpp"
#include "fault.hpp"
#include "timing.hpp"

namespace sterna {

enum Response : uint8_t { OKAY = 0, SLVERR = 2, DECERR = 3 };

// One cycle is: pins settle, sample() looks at the handshakes without touching a pin, the clock
// rises, drive() sets the pins of the next cycle.
template <typename Port>
class AxiMemory {
public:
    static constexpr unsigned BEAT_BYTES = AxiRules<Port>::BEAT_BYTES;
    static constexpr bool CAN_FAIL = true;

    // `store` has config.bytes bytes.
    AxiMemory(const MemoryConfig& config, uint8_t* store, Fault& fault)
        : rules(fault), bytes_(config.bytes), store_(store), fault_(fault),
          chance_(config.stall_threshold, config.seed) {
        if (config.kind == DDR3)
            timing_ = std::make_unique<Ddr3Timing>(config.ddr3, BEAT_BYTES);
        else if (config.kind == BANKED)
            timing_ = std::make_unique<BankedTiming>(config.banked);
        else
            timing_ = std::make_unique<IdealTiming>(config.ideal);
    }

    AxiRules<Port> rules;
    Range failing_reads, failing_writes;

    // Forget bursts in flight; contents stay.
    void reset(Port& port) {
        rules.reset();
        timing_->reset();
        reads_.clear();
        writes_.clear();
        responses_.clear();
        port.m_axi_arready = port.m_axi_rvalid = port.m_axi_awready = port.m_axi_wready = port.m_axi_bvalid = 0;
        beat_taken_ = response_taken_ = false;
    }

    void sample(const Port& port, uint64_t cycle) {
        rules.sample(port, cycle);
        if (rules.read_address()) {
            reads_.push({rules.read.address, rules.read.length + 1, OKAY});
            timing_->read(rules.read.address, rules.read.length + 1);
        }
        if (rules.write_address()) {
            writes_.push({rules.write.address, rules.write.length + 1, OKAY});
            timing_->write(rules.write.address, rules.write.length + 1);
        }
        if (rules.write_data()) take(port, cycle);
        beat_taken_ = port.m_axi_rvalid && port.m_axi_rready;
        response_taken_ = port.m_axi_bvalid && port.m_axi_bready;
    }

    void drive(Port& port, uint64_t) {
        timing_->step();
        port.m_axi_arready = timing_->takes_read() && !chance_.hit();
        if (beat_taken_) port.m_axi_rvalid = 0;
        if (!port.m_axi_rvalid && !reads_.empty() && timing_->has_beat() && !chance_.hit()) show_beat(port);
        port.m_axi_awready = timing_->takes_write() && !chance_.hit();
        port.m_axi_wready = !writes_.empty() && timing_->takes_beat() && !chance_.hit();
        if (response_taken_) port.m_axi_bvalid = 0;
        if (!port.m_axi_bvalid && !responses_.empty() && timing_->has_response() && !chance_.hit()) {
            timing_->response_shown();
            port.m_axi_bresp = responses_.front();
            port.m_axi_bvalid = 1;
            responses_.pop();
        }
    }

private:
    struct Burst {
        uint64_t address;  // of the next beat
        uint32_t beats;    // still to come
        uint8_t response;  // worst so far (writes)
    };

    uint8_t respond(const Range& failing, uint64_t address) const {
        if (address > bytes_ - BEAT_BYTES) return DECERR;
        return failing.touches(address, BEAT_BYTES) ? SLVERR : OKAY;
    }

    void show_beat(Port& port) {
        timing_->beat_shown();
        Burst& burst = reads_.front();
        uint8_t response = respond(failing_reads, burst.address);
        if (response == OKAY)
            std::memcpy(&port.m_axi_rdata, store_ + burst.address, BEAT_BYTES);
        else
            std::memset(&port.m_axi_rdata, 0, BEAT_BYTES);
        port.m_axi_rresp = response;
        port.m_axi_rlast = burst.beats == 1;
        port.m_axi_rvalid = 1;
        burst.address += BEAT_BYTES;
        if (--burst.beats == 0) reads_.pop();
    }

    void take(const Port& port, uint64_t cycle) {
        Burst& burst = writes_.front();
        uint8_t response = respond(failing_writes, burst.address);
        if (response == OKAY) {
            const auto* data = reinterpret_cast<const uint8_t*>(&port.m_axi_wdata);
            const auto* strobe = reinterpret_cast<const uint8_t*>(&port.m_axi_wstrb);
            for (unsigned i = 0; i < BEAT_BYTES; ++i)
                if (strobe[i / 8] >> (i % 8) & 1) store_[burst.address + i] = data[i];
        }
        if (response > burst.response) burst.response = response;
        bool last = burst.beats == 1;
        if (bool(port.m_axi_wlast) != last)
            fault_.raise(cycle, "WLAST is %u with %u beats of the burst to come", unsigned(port.m_axi_wlast), burst.beats - 1);
        timing_->write_beat(last);
        burst.address += BEAT_BYTES;
        if (--burst.beats) return;
        responses_.push(burst.response);
        writes_.pop();
    }

    uint64_t bytes_;
    uint8_t* store_;
    Fault& fault_;
    Chance chance_;
    std::unique_ptr<Timing> timing_;
    Queue<Burst, QUEUE> reads_, writes_;
    Queue<uint8_t, QUEUE> responses_;
    bool beat_taken_ = false, response_taken_ = false;
};

}  // namespace sterna
