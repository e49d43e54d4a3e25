// The pins of one memory port of a Verilated model, by the names that memories use: each is the model's own pin.
#pragma once

#include <cstdint>

namespace sterna {

template <typename AddressPin, typename DataPin, typename StrobePin>
struct PortPins {
    AddressPin &m_axi_araddr, &m_axi_awaddr;
    uint8_t &m_axi_arlen, &m_axi_arsize, &m_axi_arburst, &m_axi_arvalid, &m_axi_arready;
    DataPin& m_axi_rdata;
    uint8_t &m_axi_rresp, &m_axi_rlast, &m_axi_rvalid, &m_axi_rready;
    uint8_t &m_axi_awlen, &m_axi_awsize, &m_axi_awburst, &m_axi_awvalid, &m_axi_awready;
    DataPin& m_axi_wdata;
    StrobePin& m_axi_wstrb;
    uint8_t &m_axi_wlast, &m_axi_wvalid, &m_axi_wready;
    uint8_t &m_axi_bresp, &m_axi_bvalid, &m_axi_bready;
};

}  // namespace sterna

// The pins of port `name` of `top`, in the order of PortPins.
#define PORT_PINS(top, name)                                                                                   \
    {                                                                                                          \
        top.name##_araddr, top.name##_awaddr, top.name##_arlen, top.name##_arsize, top.name##_arburst,         \
            top.name##_arvalid, top.name##_arready, top.name##_rdata, top.name##_rresp, top.name##_rlast,      \
            top.name##_rvalid, top.name##_rready, top.name##_awlen, top.name##_awsize, top.name##_awburst,     \
            top.name##_awvalid, top.name##_awready, top.name##_wdata, top.name##_wstrb, top.name##_wlast,      \
            top.name##_wvalid, top.name##_wready, top.name##_bresp, top.name##_bvalid, top.name##_bready       \
    }
