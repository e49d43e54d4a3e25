// What Python chooses about the memory; mirrors the structures of native.py.
#pragma once

#include <cstdint>

namespace sterna {

enum MemoryKind : uint32_t { IDEAL = 0, DDR3 = 1, CONTROLLER = 2, BANKED = 3 };

// A memory of constant rate and latency (MemoryModel).
struct IdealConfig {
    uint32_t latency;            // cycles from the address handshake to the first data beat (or the write response)
    uint32_t beats_numerator;    // a direction moves at most numerator beats
    uint32_t beats_denominator;  // in denominator cycles
    uint32_t refresh_interval;   // every so many cycles (0: never) ...
    uint32_t refresh_cycles;     // ... no data moves for so many cycles
};

// A DRAM behind a controller that works on one bank at a time (Ddr3Model). Cycles of the port's clock.
struct Ddr3Config {
    uint32_t row_bytes;          // of one row of one bank; consecutive rows of the address space are in consecutive banks
    uint32_t banks;
    uint32_t buffered_beats;     // beats in flight, each way
    uint32_t queue_cycles;       // from accepting a beat to its bank's decision
    uint32_t read_cycles;        // from a read command to the beat on the port
    uint32_t write_cycles;       // from a write command to the beat having left the buffer
    uint32_t column_cycles;      // from one column command to the next
    uint32_t trcd, trp, tras, trc;
    uint32_t write_recovery;     // from a write command to a precharge
    uint32_t read_to_write;      // from the decision to write to the write command
    uint32_t write_to_read;      // from a write command to a read command
    uint32_t refresh_interval;   // from one refresh to the next
    uint32_t refresh_cycles;     // from the last bank's coming to rest to the next command
};

// Channels in lockstep behind controllers that open rows ahead (BankedModel). Cycles of the port's clock.
struct BankedConfig {
    uint32_t beat_bytes;         // of all channels together
    uint32_t channels;
    uint32_t rate_numerator;     // a channel moves at most numerator beats
    uint32_t rate_denominator;   // in denominator cycles
    uint32_t latency;            // from the address handshake to the first beat, beyond its row's opening
    uint32_t write_latency;      // from the last beat written to the response
    uint32_t row_beats;          // of one row of one bank
    uint32_t interleave_beats;   // consecutive beats in one bank
    uint32_t banks;
    uint32_t trcd, trp, tras, trrd;
    uint32_t read_recovery;      // from a read to a precharge
    uint32_t write_recovery;     // from a write to a precharge
    uint32_t turnaround;         // of the data bus
    uint32_t refresh_interval, refresh_cycles;
    uint32_t refresh_stagger;    // from one channel's refresh to the next one's
    uint32_t refresh_phase;      // of the first channel
    uint32_t beats_in_flight;    // asked for and not taken
    uint32_t write_queue;        // cycles by which written data may be behind
};

// The chip behind a controller's DFI, in clocks of the DRAM unless it says cycles (ControllerModel).
struct ChipConfig {
    uint32_t init_register;                // word address of the register that opens the port
    uint32_t read_latency, write_latency;  // cycles, of the PHY
    uint32_t bank_bits, column_bits;
    uint32_t cl, cwl;
    uint32_t trcd, trp, tras, trc, trrd, tfaw, tccd, trtp, twr, twtr, trfc, trefi;
};

// The memory behind one port.
struct MemoryConfig {
    uint64_t bytes;
    uint64_t seed;
    uint32_t stall_threshold;  // chance of a stall on a channel in a cycle, of 2**32
    uint32_t kind;
    IdealConfig ideal;
    Ddr3Config ddr3;
    BankedConfig banked;
    ChipConfig chip;
};

struct MemoryCounters {
    uint64_t read_bursts = 0, read_beats = 0, write_bursts = 0, write_beats = 0, last_transfer = 0;

    // Those of another port as well.
    void operator+=(const MemoryCounters& other) {
        read_bursts += other.read_bursts;
        read_beats += other.read_beats;
        write_bursts += other.write_bursts;
        write_beats += other.write_beats;
        if (other.last_transfer > last_transfer) last_transfer = other.last_transfer;
    }
};

}  // namespace sterna
