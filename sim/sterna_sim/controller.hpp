// The board's DRAM controller, Verilated, as the memory of a port; behind its DFI is a simulated chip.
#pragma once

#include <cstdint>
#include <cstring>

#include "Vdram.h"
#include "axi_rules.hpp"
#include "chip.hpp"
#include "config.hpp"
#include "fault.hpp"
#include "verilated.h"

namespace sterna {

// Same order of calls as AxiMemory. The port's data is as wide as the controller's.
template <typename Port>
class ControllerMemory {
public:
    static constexpr unsigned BEAT_BYTES = AxiRules<Port>::BEAT_BYTES;
    static constexpr bool CAN_FAIL = false;  // LiteDRAM answers every access OKAY
    static_assert(BEAT_BYTES == sizeof(Vdram::bus_rdata), "the port is not as wide as the controller's");

    ControllerMemory(const MemoryConfig& config, uint8_t* store, Fault& fault)
        : rules(fault), init_register_(config.chip.init_register), fault_(fault), dram_(&context_, "dram"),
          chip_(config.chip, store, fault) {}
    ~ControllerMemory() { dram_.final(); }

    AxiRules<Port> rules;
    Range failing_reads, failing_writes;  // stay empty

    // Reset the controller too, so that no burst of before is answered, and open its port as a host does.
    void reset(Port& port) {
        rules.reset();
        chip_.reset();
        dram_.bus_arvalid = dram_.bus_awvalid = dram_.bus_wvalid = dram_.bus_rready = dram_.bus_bready = 0;
        dram_.control_cyc = dram_.control_stb = 0;
        dram_.rst_in = 1;
        for (int i = 0; i < RESET_CYCLES; ++i) clock();
        dram_.rst_in = 0;
        dram_.control_adr = init_register_;
        dram_.control_dat_w = 1;
        dram_.control_cyc = dram_.control_stb = dram_.control_we = 1;
        bool done = false;
        for (int i = 0; i < CONTROL_CYCLES && !done; ++i) done = clock();
        if (!done) fault_.raise(0, "the DRAM controller did not take the write that opens its port");
        dram_.control_cyc = dram_.control_stb = dram_.control_we = 0;
        for (int i = 0; i < OPEN_CYCLES; ++i) clock();
        outputs(port);
    }

    void sample(const Port& port, uint64_t cycle) {
        dram_.bus_araddr = port.m_axi_araddr;
        dram_.bus_arlen = port.m_axi_arlen;
        dram_.bus_arsize = port.m_axi_arsize;
        dram_.bus_arburst = port.m_axi_arburst;
        dram_.bus_arvalid = port.m_axi_arvalid;
        dram_.bus_rready = port.m_axi_rready;
        dram_.bus_awaddr = port.m_axi_awaddr;
        dram_.bus_awlen = port.m_axi_awlen;
        dram_.bus_awsize = port.m_axi_awsize;
        dram_.bus_awburst = port.m_axi_awburst;
        dram_.bus_awvalid = port.m_axi_awvalid;
        std::memcpy(&dram_.bus_wdata, &port.m_axi_wdata, BEAT_BYTES);
        std::memcpy(&dram_.bus_wstrb, &port.m_axi_wstrb, sizeof dram_.bus_wstrb);
        dram_.bus_wlast = port.m_axi_wlast;
        dram_.bus_wvalid = port.m_axi_wvalid;
        dram_.bus_bready = port.m_axi_bready;
        settle(cycle);
        // drive() has shown the port what the controller says without these inputs.
        if (dram_.bus_arready != port.m_axi_arready || dram_.bus_awready != port.m_axi_awready ||
            dram_.bus_wready != port.m_axi_wready || dram_.bus_rvalid != port.m_axi_rvalid ||
            dram_.bus_bvalid != port.m_axi_bvalid)
            fault_.raise(cycle, "a ready or valid of the DRAM controller depends on its inputs in the same cycle");
        rules.sample(port, cycle);
    }

    void drive(Port& port, uint64_t) {
        edge();
        outputs(port);
    }

private:
    static constexpr int RESET_CYCLES = 4;
    static constexpr int CONTROL_CYCLES = 100;
    static constexpr int OPEN_CYCLES = 4;

    void settle(uint64_t cycle) {
        dram_.clk_in = 0;
        dram_.eval();
        chip_.sample(dram_, cycle);
    }
    void edge() {
        dram_.clk_in = 1;
        dram_.eval();
        chip_.drive(dram_);
    }
    // A cycle with the port closed; whether the control port has answered in it.
    bool clock() {
        settle(0);
        bool answered = dram_.control_ack;
        edge();
        return answered;
    }

    void outputs(Port& port) {
        port.m_axi_arready = dram_.bus_arready;
        port.m_axi_rvalid = dram_.bus_rvalid;
        port.m_axi_rlast = dram_.bus_rlast;
        port.m_axi_rresp = dram_.bus_rresp;
        std::memcpy(&port.m_axi_rdata, &dram_.bus_rdata, BEAT_BYTES);
        port.m_axi_awready = dram_.bus_awready;
        port.m_axi_wready = dram_.bus_wready;
        port.m_axi_bvalid = dram_.bus_bvalid;
        port.m_axi_bresp = dram_.bus_bresp;
    }

    uint32_t init_register_;
    Fault& fault_;
    VerilatedContext context_;
    Vdram dram_;
    Chip chip_;
};

}  // namespace sterna
