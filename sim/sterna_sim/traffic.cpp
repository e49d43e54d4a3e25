// A manager of a memory port that issues a list of bursts, for measuring memories; a C ABI that Python loads (traffic.py).
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "config.hpp"
#include "fault.hpp"
#include "store.hpp"
#if STERNA_CONTROLLER
#include "controller.hpp"
#else
#include "memory.hpp"
#endif

namespace sterna {

constexpr unsigned BEAT = STERNA_BEAT;  // bytes
constexpr uint8_t SIZE = __builtin_ctz(BEAT);

// The pins of a port.
struct Port {
    uint32_t m_axi_araddr = 0, m_axi_awaddr = 0;
    uint8_t m_axi_arlen = 0, m_axi_arsize = SIZE, m_axi_arburst = 1, m_axi_arvalid = 0, m_axi_arready = 0;
    uint8_t m_axi_rdata[BEAT] = {}, m_axi_rresp = 0, m_axi_rlast = 0, m_axi_rvalid = 0, m_axi_rready = 1;
    uint8_t m_axi_awlen = 0, m_axi_awsize = SIZE, m_axi_awburst = 1, m_axi_awvalid = 0, m_axi_awready = 0;
    uint8_t m_axi_wdata[BEAT] = {}, m_axi_wlast = 0, m_axi_wvalid = 0, m_axi_wready = 0;
    uint8_t m_axi_wstrb[BEAT / 8];
    uint8_t m_axi_bresp = 0, m_axi_bvalid = 0, m_axi_bready = 1;
};

#if STERNA_CONTROLLER
using Memory = ControllerMemory<Port>;
#else
using Memory = AxiMemory<Port>;
#endif

struct BurstList {
    const uint32_t* addresses;
    const uint16_t* beats;
    uint64_t count;
    uint64_t* arrivals;  // cycle of each beat (reads: on R, writes: on W), one after the other
    uint8_t* data;       // of all beats, one after the other: filled in by reads, written by writes
};

// Issues as the accelerator's ports do: an address every second cycle at most, a number of bursts in flight at most,
// data taken at once; of writes one burst at a time.
class Traffic {
public:
    explicit Traffic(const MemoryConfig& config) : store(config.bytes), memory(config, store.data(), fault) {
        std::memset(port_.m_axi_wstrb, 0xFF, sizeof port_.m_axi_wstrb);
        memory.reset(port_);
    }

    Fault fault;
    Store store;

    void idle(uint64_t cycles) {
        for (uint64_t i = 0; i < cycles && !fault.raised(); ++i) clock();
    }

    // Runs both lists side by side until all is answered, for `limit` cycles at most; cycles taken, 0 on a failure.
    uint64_t run(const BurstList& reads, const BurstList& writes, uint32_t outstanding, uint64_t limit) {
        uint64_t start = cycle_, asked = 0, answered = 0, beat = 0, begun = 0, finished = 0, written = 0;
        uint32_t left = 0;
        bool paused = false;
        while (answered < reads.count || finished < writes.count) {
            if (!port_.m_axi_arvalid && !paused && asked < reads.count && asked - answered < outstanding) {
                port_.m_axi_araddr = reads.addresses[asked];
                port_.m_axi_arlen = reads.beats[asked] - 1;
                port_.m_axi_arvalid = 1;
                ++asked;
            }
            if (begun == finished && begun < writes.count) {
                port_.m_axi_awaddr = writes.addresses[begun];
                port_.m_axi_awlen = writes.beats[begun] - 1;
                port_.m_axi_awvalid = port_.m_axi_wvalid = 1;
                left = writes.beats[begun++];
            }
            if (port_.m_axi_wvalid) {
                port_.m_axi_wlast = left == 1;
                std::memcpy(port_.m_axi_wdata, writes.data + written * BEAT, BEAT);
            }
            clock();
            if (fault.raised() || cycle_ - start > limit) return 0;
            paused = taken_.address;
            if (taken_.address) port_.m_axi_arvalid = 0;
            if (taken_.write_address) port_.m_axi_awvalid = 0;
            if (taken_.beat) {
                std::memcpy(reads.data + beat * BEAT, taken_.bytes, BEAT);
                reads.arrivals[beat++] = cycle_ - 1 - start;
            }
            answered += taken_.last;
            if (taken_.data) {
                writes.arrivals[written++] = cycle_ - 1 - start;
                if (--left == 0) port_.m_axi_wvalid = 0;
            }
            finished += taken_.response;
        }
        return cycle_ - start;
    }

private:
    // Transfers of the cycle that has just been clocked.
    struct Taken {
        bool address, beat, last, write_address, data, response;
        uint8_t bytes[BEAT];
    };

    void clock() {
        memory.sample(port_, cycle_);
        bool beat = port_.m_axi_rvalid && port_.m_axi_rready;
        taken_ = {port_.m_axi_arvalid && port_.m_axi_arready, beat,
                  beat && port_.m_axi_rlast,                  port_.m_axi_awvalid && port_.m_axi_awready,
                  port_.m_axi_wvalid && port_.m_axi_wready,   port_.m_axi_bvalid && port_.m_axi_bready, {}};
        std::memcpy(taken_.bytes, port_.m_axi_rdata, BEAT);
        memory.drive(port_, cycle_);
        ++cycle_;
    }

    Port port_;
    Taken taken_ = {};
    uint64_t cycle_ = 0;

public:
    Memory memory;
};

}  // namespace sterna

using sterna::Traffic;
#define API extern "C" __attribute__((visibility("default")))

API Traffic* sterna_traffic_create(const sterna::MemoryConfig* config) {
    try {
        return new Traffic(*config);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
API void sterna_traffic_destroy(Traffic* traffic) { delete traffic; }
API const char* sterna_traffic_fault(const Traffic* traffic) { return traffic->fault.text(); }
API uint8_t* sterna_traffic_memory(Traffic* traffic) { return traffic->store.data(); }
API void sterna_traffic_idle(Traffic* traffic, uint64_t cycles) { traffic->idle(cycles); }
API uint64_t sterna_traffic_run(Traffic* traffic, const sterna::BurstList* reads, const sterna::BurstList* writes,
                                uint32_t outstanding, uint64_t limit) {
    return traffic->run(*reads, *writes, outstanding, limit);
}
