// The accelerator as a device: clock, register port, memories, traces, behind a C ABI that Python loads (device.py).
// STERNA_PORTS lists the model's memory ports: PORT(m_axi), or PORT(m_axi_0) PORT(m_axi_1) ... of clusters.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "Vsterna.h"
#include "config.hpp"
#include "fault.hpp"
#include "port.hpp"
#include "store.hpp"
#if STERNA_CONTROLLER
#include "controller.hpp"
#else
#include "memory.hpp"
#endif
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif

namespace sterna {

// All ports have pins of the same shapes, or this does not compile.
#define PORT(name)                                       \
    using AddressPin = decltype(Vsterna::name##_araddr); \
    using DataPin = decltype(Vsterna::name##_rdata);     \
    using StrobePin = decltype(Vsterna::name##_wstrb);
STERNA_PORTS
#undef PORT
using Port = PortPins<AddressPin, DataPin, StrobePin>;

#define PORT(name) +1
constexpr unsigned PORTS = 0 STERNA_PORTS;
#undef PORT

#if STERNA_CONTROLLER
using Memory = ControllerMemory<Port>;
#else
using Memory = AxiMemory<Port>;
#endif

constexpr unsigned VALUE_BYTES = 3;  // of a traced value, sterna.spec.numerics
constexpr unsigned TRACES = sizeof(Vsterna::trace_values) / VALUE_BYTES;  // at least as many as slots or clusters

enum Outcome : int { RUNNING = 0, MET = 1, QUIET = 2, FAULT = -1 };

class Device {
public:
    // `memories`: one for each port, of equal sizes. `window`: from a port's memory to the next one's, for the host.
    // `waves`: file for the signals of cycles first..last-1, or null; only in a library built for waves.
    Device(const MemoryConfig* memories, uint64_t window, const char* waves, uint64_t first, uint64_t last)
        : bytes_(memories->bytes), window_(window), store_((PORTS - 1) * window + memories->bytes),
          top_(traced(context_, waves), "sterna") {
        auto add = [&](const Port& pins) {
            uint64_t index = ports_.size();
            ports_.emplace_back(new MemoryPort(pins, memories[index], store_.data() + index * window, fault));
        };
#define PORT(name) add(Port PORT_PINS(top_, name));
        STERNA_PORTS
#undef PORT
        open_waves(waves, first, last);
        top_.s_axil_wstrb = 0xF;
        reset();
    }
    ~Device() {
        close_waves();
        top_.final();
    }

    Fault fault;
    std::vector<int32_t> trace[TRACES];
    uint64_t cycle = 0;

    void reset() {
        fault.clear();
        clear_traces();
        top_.s_axil_arvalid = top_.s_axil_rready = 0;
        top_.s_axil_awvalid = top_.s_axil_wvalid = top_.s_axil_bready = 0;
        for (auto& port : ports_) port->memory.reset(port->pins);
        top_.rst = 1;
        for (int i = 0; i < RESET_CYCLES; ++i) clock<true>();
        top_.rst = 0;
    }

    void clear_traces() {
        for (auto& values : trace) values.clear();
    }

    bool register_read(uint32_t offset, uint32_t& value) {
        top_.s_axil_araddr = offset;
        top_.s_axil_arvalid = top_.s_axil_rready = 1;
        for (int i = 0; i < REGISTER_CYCLES && !fault.raised(); ++i) {
            clock();
            if (pins_.arready) top_.s_axil_arvalid = 0;
            if (!pins_.rvalid) continue;
            if (top_.s_axil_arvalid) fault.raise(cycle, "register port answered a read before it was accepted");
            if (pins_.rresp) fault.raise(cycle, "register 0x%02x answered a read with response %u", offset, pins_.rresp);
            top_.s_axil_rready = 0;
            value = pins_.rdata;
            return !fault.raised();
        }
        fault.raise(cycle, "register port did not answer a read of 0x%02x within %d cycles", offset, REGISTER_CYCLES);
        top_.s_axil_arvalid = top_.s_axil_rready = 0;
        return false;
    }

    bool register_write(uint32_t offset, uint32_t value) {
        top_.s_axil_awaddr = offset;
        top_.s_axil_wdata = value;
        top_.s_axil_awvalid = top_.s_axil_wvalid = top_.s_axil_bready = 1;
        for (int i = 0; i < REGISTER_CYCLES && !fault.raised(); ++i) {
            clock();
            if (pins_.awready) top_.s_axil_awvalid = 0;
            if (pins_.wready) top_.s_axil_wvalid = 0;
            if (!pins_.bvalid) continue;
            if (top_.s_axil_awvalid || top_.s_axil_wvalid)
                fault.raise(cycle, "register port answered a write before it was accepted");
            if (pins_.bresp) fault.raise(cycle, "register 0x%02x answered a write with response %u", offset, pins_.bresp);
            top_.s_axil_bready = 0;
            return !fault.raised();
        }
        fault.raise(cycle, "register port did not answer a write of 0x%02x within %d cycles", offset, REGISTER_CYCLES);
        top_.s_axil_awvalid = top_.s_axil_wvalid = top_.s_axil_bready = 0;
        return false;
    }

    // Clocks until (register & mask) != 0, reading it every `interval` cycles, for about `cycles` cycles.
    Outcome wait(uint32_t offset, uint32_t mask, uint64_t cycles, uint64_t quiet, uint64_t interval, uint32_t& value) {
        uint64_t end = cycle + cycles, start = cycle;
        for (;;) {
            if (!register_read(offset, value)) return FAULT;
            if (value & mask) return MET;
            if (cycle - std::max(counters().last_transfer, wait_start_) > quiet) return QUIET;
            if (cycle >= end && cycle > start) return RUNNING;
            for (uint64_t i = 0; i < interval && !fault.raised(); ++i) clock();
        }
    }
    void wait_begin() { wait_start_ = cycle; }

    void run(uint64_t cycles) {
        for (uint64_t i = 0; i < cycles && !fault.raised(); ++i) clock();
    }

    // Bytes of memory by the host's addresses; null where a part of them is in no memory.
    uint8_t* host(uint64_t address, uint64_t size) {
        bool inside = store_.holds(address, size) && (bytes_ == window_ || address % window_ + size <= bytes_);
        return inside ? store_.data() + address : nullptr;
    }

    // Answer reads, or writes, in these host's addresses with an error.
    void fail(bool writes, Range addresses) {
        for (unsigned i = 0; i < PORTS; ++i) {
            Memory& memory = ports_[i]->memory;
            uint64_t base = i * window_, end = base + bytes_;
            Range own = {std::clamp(addresses.first, base, end) - base, std::clamp(addresses.last, base, end) - base};
            (writes ? memory.failing_writes : memory.failing_reads) = own;
        }
    }

    // Of all ports together.
    MemoryCounters counters() const {
        MemoryCounters all;
        for (const auto& port : ports_) all += port->memory.rules.counters;
        return all;
    }

private:
    static constexpr int RESET_CYCLES = 4;
    static constexpr int REGISTER_CYCLES = 1000;

    // What the register port shows before a clock edge.
    struct Pins {
        bool arready, rvalid, awready, wready, bvalid;
        uint8_t rresp, bresp;
        uint32_t rdata;
    };

    struct MemoryPort {
        MemoryPort(const Port& pins, const MemoryConfig& config, uint8_t* store, Fault& fault)
            : pins(pins), memory(config, store, fault) {}
        Port pins;
        Memory memory;
    };

    uint64_t bytes_, window_;
    Store store_;
    VerilatedContext context_;
    Vsterna top_;
    std::vector<std::unique_ptr<MemoryPort>> ports_;
    Pins pins_ = {};
    uint64_t wait_start_ = 0;

    template <bool Reset = false>
    void clock() {
        top_.clk = 0;
        top_.eval();
        dump(0);
        if (!Reset) {
            pins_ = {bool(top_.s_axil_arready), bool(top_.s_axil_rvalid), bool(top_.s_axil_awready),
                     bool(top_.s_axil_wready), bool(top_.s_axil_bvalid),  top_.s_axil_rresp,
                     top_.s_axil_bresp,        top_.s_axil_rdata};
            for_ports([this](MemoryPort& port) { port.memory.sample(port.pins, cycle); });
            if (top_.trace_valid) note_results();
        }
        top_.clk = 1;
        top_.eval();
        dump(1);
        if (!Reset) for_ports([this](MemoryPort& port) { port.memory.drive(port.pins, cycle); });
        ++cycle;
    }

    template <typename Step>
    void for_ports(Step step) {
        for (unsigned i = 0; i < PORTS; ++i) {
            if (PORTS > 1) fault.concerns(i);
            step(*ports_[i]);
        }
        fault.concerns(-1);
    }

    void note_results() {
        // 24 bits a value, that of slot or cluster 0 in the lowest; Verilator keeps them in words, low ones first, in this
        // host's byte order.
        const auto* bytes = reinterpret_cast<const uint8_t*>(&top_.trace_values);
        for (uint64_t valid = top_.trace_valid; valid; valid &= valid - 1) {
            unsigned index = __builtin_ctzll(valid);
            const uint8_t* value = bytes + VALUE_BYTES * index;
            trace[index].push_back(static_cast<int32_t>(value[0] << 8 | value[1] << 16 | uint32_t(value[2]) << 24) >> 8);
        }
    }

    static VerilatedContext* traced(VerilatedContext& context, const char* waves) {
        context.traceEverOn(waves != nullptr);
        return &context;
    }

#if VM_TRACE_FST
    std::unique_ptr<VerilatedFstC> waves_;
    uint64_t waves_first_ = 0, waves_last_ = 0;
    void open_waves(const char* path, uint64_t first, uint64_t last) {
        if (!path) return;
        waves_ = std::make_unique<VerilatedFstC>();
        top_.trace(waves_.get(), 99);
        waves_->open(path);
        waves_first_ = first;
        waves_last_ = last;
    }
    void close_waves() {
        if (waves_) waves_->close();
    }
    // Two time steps a cycle: inputs settle with the clock low, then the clock rises.
    void dump(int phase) {
        if (waves_ && cycle >= waves_first_ && cycle < waves_last_) waves_->dump(2 * cycle + phase);
    }
#else
    void open_waves(const char*, uint64_t, uint64_t) {}
    void close_waves() {}
    void dump(int) {}
#endif
};

}  // namespace sterna

using sterna::Device;
#define API extern "C" __attribute__((visibility("default")))

API uint32_t sterna_beat_bytes() { return sterna::Memory::BEAT_BYTES; }
API uint32_t sterna_ports() { return sterna::PORTS; }

API Device* sterna_create(const sterna::MemoryConfig* memories, uint64_t window, const char* waves, uint64_t first,
                          uint64_t last) {
    try {
        return new Device(memories, window, waves, first, last);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
API void sterna_destroy(Device* device) { delete device; }
API void sterna_reset(Device* device) { device->reset(); }
API uint64_t sterna_cycle(const Device* device) { return device->cycle; }
API const char* sterna_fault(const Device* device) { return device->fault.text(); }

API int sterna_memory_read(Device* device, uint64_t address, uint8_t* data, uint64_t size) {
    const uint8_t* source = device->host(address, size);
    if (source) std::memcpy(data, source, size);
    return source != nullptr;
}
API int sterna_memory_write(Device* device, uint64_t address, const uint8_t* data, uint64_t size) {
    uint8_t* target = device->host(address, size);
    if (target) std::memcpy(target, data, size);
    return target != nullptr;
}
API int sterna_memory_fail(Device* device, int writes, uint64_t first, uint64_t last) {
    if (!sterna::Memory::CAN_FAIL && first != last) return 0;
    device->fail(writes, {first, last});
    return 1;
}
API void sterna_memory_counters(const Device* device, sterna::MemoryCounters* counters) { *counters = device->counters(); }

API int sterna_register_read(Device* device, uint32_t offset, uint32_t* value) { return device->register_read(offset, *value); }
API int sterna_register_write(Device* device, uint32_t offset, uint32_t value) { return device->register_write(offset, value); }
API void sterna_run(Device* device, uint64_t cycles) { device->run(cycles); }
API void sterna_wait_begin(Device* device) { device->wait_begin(); }
API int sterna_wait(Device* device, uint32_t offset, uint32_t mask, uint64_t cycles, uint64_t quiet, uint64_t interval,
                    uint32_t* value) {
    return device->wait(offset, mask, cycles, quiet, interval, *value);
}

// `index`: of a slot or a cluster.
API uint64_t sterna_trace_size(const Device* device, uint32_t index) {
    return index < sterna::TRACES ? device->trace[index].size() : 0;
}
API void sterna_trace_take(Device* device, uint32_t index, int32_t* values) {
    if (index >= sterna::TRACES) return;
    auto& trace = device->trace[index];
    std::memcpy(values, trace.data(), trace.size() * sizeof(int32_t));
    trace.clear();
}
API void sterna_trace_clear(Device* device) { device->clear_traces(); }
