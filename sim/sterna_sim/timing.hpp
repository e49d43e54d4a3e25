// When a memory takes requests and moves data. AxiMemory asks in every cycle; what is moved is none of its business.
#pragma once

#include <cstdint>

#include "config.hpp"
#include "fault.hpp"

namespace sterna {

constexpr unsigned QUEUE = 64;  // bursts waiting in each direction, at most

// In each cycle: what was transferred in it is reported, then step() goes on to the next cycle, then the questions say
// what the pins may show in that one. A beat or a response that may be shown is shown, unless the one before it has not
// been taken, and reported as such.
class Timing {
public:
    virtual ~Timing() = default;
    virtual void reset() = 0;

    virtual void read(uint64_t address, uint32_t beats) = 0;   // address handshakes
    virtual void write(uint64_t address, uint32_t beats) = 0;
    virtual void write_beat(bool last) = 0;                    // a beat was taken

    virtual void step() = 0;

    virtual bool takes_read() = 0;   // addresses
    virtual bool takes_write() = 0;
    virtual bool takes_beat() = 0;   // of write data; asked only while a burst waits for some
    virtual bool has_beat() = 0;     // of read data
    virtual bool has_response() = 0;
    virtual void beat_shown() = 0;
    virtual void response_shown() = 0;
};

// Constant latency and rate, a channel for reads and one for writes, and refreshes in which no data moves.
class IdealTiming final : public Timing {
public:
    explicit IdealTiming(const IdealConfig& config) : config_(config) {}

    void reset() override {
        reads_.clear();
        writes_ = 0;
        responses_.clear();
    }

    void read(uint64_t, uint32_t beats) override { reads_.push({now_ + config_.latency, beats}); }
    void write(uint64_t, uint32_t) override { ++writes_; }
    void write_beat(bool last) override {
        write_credit_ -= config_.beats_denominator;
        if (!last) return;
        --writes_;
        responses_.push(now_ + config_.latency);
    }

    void step() override {
        refreshing_ = config_.refresh_interval && now_ % config_.refresh_interval < config_.refresh_cycles;
        ++now_;
        if (refreshing_) return;
        save(read_credit_);
        save(write_credit_);
    }

    bool takes_read() override { return !reads_.full(); }
    bool takes_write() override { return writes_ + responses_.size() < QUEUE; }
    bool takes_beat() override { return !refreshing_ && write_credit_ >= config_.beats_denominator; }
    bool has_beat() override {
        return !refreshing_ && !reads_.empty() && reads_.front().due <= now_ && read_credit_ >= config_.beats_denominator;
    }
    bool has_response() override { return !responses_.empty() && responses_.front() <= now_; }
    void beat_shown() override {
        read_credit_ -= config_.beats_denominator;
        if (--reads_.front().beats == 0) reads_.pop();
    }
    void response_shown() override { responses_.pop(); }

private:
    struct Burst {
        uint64_t due;  // first cycle in which data may be shown
        uint32_t beats;
    };

    // A beat may move whenever numerator / denominator of a cycle's worth has been saved up, at most one beat ahead.
    void save(uint32_t& credit) const {
        if (credit < config_.beats_denominator) credit += config_.beats_numerator;
    }

    IdealConfig config_;
    uint64_t now_ = 0;
    bool refreshing_ = false;
    uint32_t read_credit_ = 0, write_credit_ = 0;
    unsigned writes_ = 0;
    Queue<Burst, QUEUE> reads_;
    Queue<uint64_t, QUEUE> responses_;
};

}  // namespace sterna
