// Timing of DRAM channels behind controllers that open rows ahead: DDR4 of a Zynq, HBM.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "config.hpp"
#include "fault.hpp"
#include "timing.hpp"

namespace sterna {

// Every channel holds a slice of each beat, so all see the same requests and differ only in when they refresh; a beat
// is there when its last slice is. Requests are served in order. A row is opened as soon as its request has arrived and
// its bank allows, so openings hide behind the data of other banks, as far as requests in flight reach. Times are known
// when a request is accepted, because nothing overtakes.
class BankedTiming final : public Timing {
public:
    explicit BankedTiming(const BankedConfig& config) : config_(config) { reset(); }

    void reset() override {
        shown_at_.clear();
        responses_.clear();
        waiting_writes_.clear();
        in_flight_ = 0;
        channels_.assign(config_.channels, Channel{});
        for (uint32_t i = 0; i < config_.channels; ++i) {
            channels_[i].banks.assign(config_.banks, Bank{});
            channels_[i].next_refresh = now_ + config_.refresh_interval + config_.refresh_phase + i * config_.refresh_stagger;
        }
    }

    void read(uint64_t address, uint32_t beats) override {
        in_flight_ += beats;
        for (uint32_t i = 0; i < beats; ++i)
            shown_at_.push(access(address / config_.beat_bytes + i, false) + config_.latency);
    }
    void write(uint64_t address, uint32_t beats) override { waiting_writes_.push({address / config_.beat_bytes, beats}); }
    void write_beat(bool last) override {
        Burst& burst = waiting_writes_.front();
        uint64_t done = access(burst.beat++, true);
        if (!last) return;
        waiting_writes_.pop();
        responses_.push(done + config_.write_latency);
    }

    void step() override { ++now_; }

    bool takes_read() override { return in_flight_ + MAX_BURST <= config_.beats_in_flight || !in_flight_; }
    bool takes_write() override { return !waiting_writes_.full() && !responses_.full(); }
    bool takes_beat() override { return last_column_ <= now_ + config_.write_queue; }
    bool has_beat() override { return !shown_at_.empty() && shown_at_.front() <= now_; }
    bool has_response() override { return !responses_.empty() && responses_.front() <= now_; }
    void beat_shown() override {
        shown_at_.pop();
        --in_flight_;
    }
    void response_shown() override { responses_.pop(); }

private:
    static constexpr unsigned MAX_BURST = 256, BEATS = 4096;

    struct Burst {
        uint64_t beat;  // the next, counted from address 0
        uint32_t beats;
    };
    struct Bank {
        bool open = false;
        uint64_t row = 0, activated = 0, idle = 0;  // idle: from when a precharge may follow its last access
    };
    struct Channel {
        std::vector<Bank> banks;
        uint64_t activated = 0, next_refresh = 0;
        uint64_t column = 0;  // of the last access, in 1/rate_numerator of a cycle
        bool writing = false;
    };

    // The cycle in which all channels have moved the beat.
    uint64_t access(uint64_t beat, bool write) {
        uint64_t line = beat / config_.interleave_beats, bank = line % config_.banks;
        uint64_t row = line / config_.banks * config_.interleave_beats / config_.row_beats;
        uint64_t moved = 0;
        for (Channel& channel : channels_) moved = std::max(moved, access(channel, channel.banks[bank], row, write));
        return last_column_ = moved;
    }

    uint64_t access(Channel& channel, Bank& bank, uint64_t row, bool write) {
        refresh(channel);
        uint64_t time = open(channel, bank, row, now_);
        uint64_t unit = config_.rate_numerator, earliest = channel.column + config_.rate_denominator;
        if (channel.writing != write) earliest += unit * config_.turnaround;
        uint64_t column = std::max(time * unit, earliest);
        channel.writing = write;
        channel.column = column;
        bank.idle = column / unit + (write ? config_.write_recovery : config_.read_recovery);
        return column / unit;
    }

    // Cycle from which the row can be read, opening it if it is not open; the command may be given from `from` on.
    uint64_t open(Channel& channel, Bank& bank, uint64_t row, uint64_t from) {
        if (!bank.open || bank.row != row) {
            uint64_t time = from;
            if (bank.open) time = std::max({from, bank.idle, bank.activated + config_.tras}) + config_.trp;
            time = std::max(time, channel.activated + config_.trrd);
            channel.activated = bank.activated = time;
            bank.open = true;
            bank.row = row;
        }
        return bank.activated + config_.trcd;
    }

    // All refreshes due by now: they wait for what was accepted, and close every bank.
    void refresh(Channel& channel) {
        while (config_.refresh_interval && now_ >= channel.next_refresh) {
            uint64_t rest = std::max(channel.next_refresh, channel.column / config_.rate_numerator + config_.read_recovery);
            uint64_t end = rest + config_.trp + config_.refresh_cycles;
            for (Bank& bank : channel.banks) bank = Bank{};
            channel.activated = end;  // no row opens sooner
            channel.next_refresh += config_.refresh_interval;
        }
    }

    BankedConfig config_;
    uint64_t now_ = 0, last_column_ = 0;
    uint32_t in_flight_ = 0;
    std::vector<Channel> channels_;
    Queue<uint64_t, BEATS> shown_at_;
    Queue<uint64_t, QUEUE> responses_;
    Queue<Burst, QUEUE> waiting_writes_;
};

}  // namespace sterna
