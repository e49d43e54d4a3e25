// A board: the synthesised top, its memory chip and its serial line, behind a C ABI that Python loads (twin.py).
#include <cstdint>
#include <cstring>
#include <new>

#include "../fault.hpp"
#include "../store.hpp"
#include "Vtwin.h"
#include "ddr3_pins.hpp"
#include "serial_line.hpp"
#include "twin_config.hpp"
#include "verilated.h"

namespace sterna {

class Twin {
public:
    explicit Twin(const TwinConfig& config)
        : config_(config), store(config.bytes), line(config.bit_ticks_q16), top_(&context_, "twin"),
          chip_(config_, store.data(), fault) {
        top_.uart_rx = 1;
        top_.eval();
    }
    ~Twin() { top_.final(); }

private:
    TwinConfig config_;

public:
    Store store;
    Fault fault;
    SerialLine line;
    int64_t now = 0;  // ticks

    // Ends early when a byte comes from the board, or at a fault.
    void run(int64_t ticks) {
        size_t had = line.from_board.size();
        for (int64_t end = now + ticks; now < end && !fault.raised() && line.from_board.size() == had;) tick();
    }

#if STERNA_TWIN_CORE
    // A transfer on the control port of a core without a system around it.
    uint32_t control(uint32_t word, uint32_t value, bool write) {
        top_.wb_adr = word;
        top_.wb_dat_w = value;
        top_.wb_we = write;
        top_.wb_cyc = 1;
        for (int i = 0; i < CONTROL_TICKS && !(top_.wb_ack && top_.user_clk); ++i) tick();
        uint32_t answer = top_.wb_dat_r;
        while (top_.user_clk) tick();
        while (!top_.user_clk) tick();  // the edge that ends the transfer
        top_.wb_cyc = 0;
        for (int i = 0; i < 2 * TICKS_PER_CYCLE; ++i) tick();
        return answer;
    }
    static constexpr int CONTROL_TICKS = 1000 * TICKS_PER_CYCLE;
#endif

private:
    void tick() {
        chip_.drive(top_, now);
        top_.uart_rx = line.level(now);
        top_.clk = now / config_.clock_half_ticks % 2;
        top_.tick = !top_.tick;
        top_.eval();
        chip_.sample(top_, now);
        line.sample(top_.uart_tx, now);
        ++now;
    }

    VerilatedContext context_;
    Vtwin top_;
    Ddr3Pins chip_;
};

}  // namespace sterna

using sterna::Twin;
#define API extern "C" __attribute__((visibility("default")))

API Twin* twin_create(const sterna::TwinConfig* config) {
    try {
        return new Twin(*config);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
API void twin_destroy(Twin* twin) { delete twin; }
API const char* twin_fault(const Twin* twin) { return twin->fault.text(); }
API int64_t twin_now(const Twin* twin) { return twin->now; }
API void twin_run(Twin* twin, int64_t ticks) { twin->run(ticks); }
API void twin_send(Twin* twin, const uint8_t* data, uint64_t size) {
    twin->line.to_board.insert(twin->line.to_board.end(), data, data + size);
}
API uint64_t twin_sending(const Twin* twin) { return twin->line.to_board.size(); }
API uint64_t twin_received(const Twin* twin) { return twin->line.from_board.size(); }
API uint64_t twin_broken(const Twin* twin) { return twin->line.broken; }
API void twin_receive(Twin* twin, uint8_t* data, uint64_t size) {
    auto& queue = twin->line.from_board;
    std::copy_n(queue.begin(), size, data);
    queue.erase(queue.begin(), queue.begin() + size);
}
#if STERNA_TWIN_CORE
API uint32_t twin_control(Twin* twin, uint32_t word, uint32_t value, int write) { return twin->control(word, value, write); }
#endif
