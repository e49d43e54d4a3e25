// Looks at a memory port in every cycle: protocol rules of the manager, and what passed.
#pragma once

#include <cstdint>
#include <cstring>

#include "config.hpp"
#include "fault.hpp"

namespace sterna {

// A request on an address channel.
struct Address {
    uint64_t address = 0;
    uint32_t length = 0, size = 0, burst = 0;
    bool valid = false;
    bool operator==(const Address& other) const {
        return valid == other.valid && address == other.address && length == other.length && size == other.size &&
               burst == other.burst;
    }
};

// `Port` has the pins of the manager, as m_axi_...
template <typename Port>
class AxiRules {
public:
    static constexpr unsigned BEAT_BYTES = sizeof(Port::m_axi_rdata);

    explicit AxiRules(Fault& fault) : fault_(fault) {}

    MemoryCounters counters;

    // Forget what is held; counters stay.
    void reset() {
        held_read_ = held_write_ = Address{};
        held_data_valid_ = false;
    }

    // Pins have settled before a clock edge.
    void sample(const Port& port, uint64_t cycle) {
        read_ = write_ = data_ = false;
        if (port.m_axi_arvalid || held_read_.valid) {
            read = {port.m_axi_araddr, port.m_axi_arlen, port.m_axi_arsize, port.m_axi_arburst, bool(port.m_axi_arvalid)};
            check("AR", read, held_read_, port.m_axi_arready, cycle);
            read_ = read.valid && port.m_axi_arready;
        }
        if (port.m_axi_awvalid || held_write_.valid) {
            write = {port.m_axi_awaddr, port.m_axi_awlen, port.m_axi_awsize, port.m_axi_awburst, bool(port.m_axi_awvalid)};
            check("AW", write, held_write_, port.m_axi_awready, cycle);
            write_ = write.valid && port.m_axi_awready;
        }
        if (port.m_axi_wvalid || held_data_valid_) check_data(port, cycle);
        bool beat = port.m_axi_rvalid && port.m_axi_rready;
        counters.read_bursts += read_;
        counters.read_beats += beat;
        counters.write_bursts += write_;
        counters.write_beats += data_;
        if (read_ || beat || write_ || data_ || (port.m_axi_bvalid && port.m_axi_bready)) counters.last_transfer = cycle;
    }

    // Transfers of the cycle that was sampled, and their addresses.
    bool read_address() const { return read_; }
    bool write_address() const { return write_; }
    bool write_data() const { return data_; }
    Address read, write;

private:
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

    void check_data(const Port& port, uint64_t cycle) {
        uint8_t strobe[16] = {};
        std::memcpy(strobe, &port.m_axi_wstrb, sizeof port.m_axi_wstrb);
        if (held_data_valid_ &&
            (!port.m_axi_wvalid || held_last_ != port.m_axi_wlast || std::memcmp(held_strobe_, strobe, sizeof strobe) ||
             std::memcmp(held_data_, &port.m_axi_wdata, BEAT_BYTES)))
            fault_.raise(cycle, "W changed or dropped before it was accepted");
        data_ = port.m_axi_wvalid && port.m_axi_wready;
        held_data_valid_ = port.m_axi_wvalid && !port.m_axi_wready;
        if (!held_data_valid_) return;
        std::memcpy(held_data_, &port.m_axi_wdata, BEAT_BYTES);
        std::memcpy(held_strobe_, strobe, sizeof strobe);
        held_last_ = port.m_axi_wlast;
    }

    Fault& fault_;
    Address held_read_, held_write_;
    bool read_ = false, write_ = false, data_ = false;
    bool held_data_valid_ = false, held_last_ = false;
    uint8_t held_data_[BEAT_BYTES] = {}, held_strobe_[16] = {};
};

}  // namespace sterna
