// Timing of a DDR3 DRAM behind LiteDRAM's AXI4 port, without the controller's logic.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config.hpp"
#include "fault.hpp"
#include "timing.hpp"

namespace sterna {

// The port cuts bursts into beats and accepts one a cycle, reads and writes in turns of a burst, while less than
// `buffered_beats` of that direction are in flight. Beats wait in a queue and become column commands in order. As long
// as beats of one bank wait, beats of another are not accepted, so no row is opened ahead of its first beat. A row that
// is followed by another one of the same bank in the queue is precharged with its last column command. A refresh waits
// for no beat, and closes every row. Two arbiters, one of row commands and one of column commands, take a cycle to turn
// to another bank.
class Ddr3Timing final : public Timing {
public:
    Ddr3Timing(const Ddr3Config& config, uint32_t beat_bytes) : config_(config), beat_bytes_(beat_bytes) { reset(); }

    void reset() override {
        queue_.clear();
        shown_at_.clear();
        responses_.clear();
        leaving_.clear();
        read_ = write_ = Burst{};
        reads_in_flight_ = writes_waiting_ = writes_in_flight_ = 0;
        granted_write_ = true;  // the arbiter's state after reset
        for (Bank& bank : banks_) bank = Bank{};
        command_bank_ = column_bank_ = 0;
        writing_ = false;
        scheduled_ = 0;
        opening_until_ = blocked_until_ = last_column_ = last_write_ = now_;
        next_refresh_ = now_ + config_.refresh_interval - OPENING_CYCLES;
    }

    void read(uint64_t address, uint32_t beats) override { read_ = {address, beats}; }
    void write(uint64_t address, uint32_t beats) override { write_ = {address, beats}; }
    void write_beat(bool) override { ++writes_waiting_; }

    void step() override {
        ++now_;
        if (now_ == next_refresh_) refresh();
        accept();
        issue();
        if (!leaving_.empty() && leaving_.front().due <= now_) {
            --writes_in_flight_;
            if (leaving_.front().last) responses_.push(now_);
            leaving_.pop();
        }
    }

    bool takes_read() override { return !read_.beats; }
    bool takes_write() override { return !write_.beats; }
    bool takes_beat() override { return writes_waiting_ + writes_in_flight_ <= config_.buffered_beats; }
    bool has_beat() override { return !shown_at_.empty() && shown_at_.front() <= now_; }
    bool has_response() override { return !responses_.empty() && responses_.front() <= now_; }
    void beat_shown() override {
        shown_at_.pop();
        --reads_in_flight_;
    }
    void response_shown() override { responses_.pop(); }

private:
    static constexpr unsigned BANKS = 16, BEATS = 64;
    static constexpr uint64_t LONG_AGO = 0;
    static constexpr uint32_t OPENING_CYCLES = 6;  // from the controller's reset to the first access

    struct Burst {
        uint64_t address = 0;
        uint32_t beats = 0;  // still to be accepted
    };
    struct Command {
        uint64_t row;
        uint64_t ready;  // earliest cycle in which its bank may look at it
        uint32_t bank;
        bool write, last;
    };
    struct Bank {
        bool open = false;
        uint64_t row = 0, activated = LONG_AGO;
        uint64_t closed = LONG_AGO;  // when a precharge with a column command has begun
    };
    struct Leaving {
        uint64_t due;
        bool last;
    };

    uint32_t bank_of(uint64_t address) const { return address / config_.row_bytes % config_.banks; }
    bool locked(const Burst& burst) { return !queue_.empty() && queue_.front().bank != bank_of(burst.address); }
    bool wants(bool write) const {
        return write ? write_.beats && writes_waiting_ : read_.beats && reads_in_flight_ < config_.buffered_beats;
    }

    // One beat from the port into the queue.
    void accept() {
        bool wanted = wants(granted_write_), last = false;
        Burst& burst = granted_write_ ? write_ : read_;
        if (wanted && !locked(burst)) {
            last = burst.beats == 1;
            uint64_t row = burst.address / config_.row_bytes / config_.banks;
            queue_.push({row, now_ + config_.queue_cycles, bank_of(burst.address), granted_write_, last});
            burst.address += beat_bytes_;
            --burst.beats;
            if (granted_write_) {
                --writes_waiting_;
                ++writes_in_flight_;
            } else {
                ++reads_in_flight_;
            }
        }
        if ((!wanted || last) && wants(!granted_write_)) granted_write_ = !granted_write_;
    }

    // The oldest beat of the queue becomes a column command when its row is open and the bus is free.
    void issue() {
        if (queue_.empty() || now_ < blocked_until_) return;
        Command& command = queue_.front();
        if (!scheduled_) {
            if (now_ < command.ready) return;
            scheduled_ = schedule(command);
        }
        if (now_ < scheduled_) return;
        Bank& bank = banks_[command.bank];
        scheduled_ = 0;
        last_column_ = now_;
        column_bank_ = command.bank;
        if (command.write) {
            last_write_ = now_;
            leaving_.push({now_ + config_.write_cycles, command.last});
        } else {
            shown_at_.push(now_ + config_.read_cycles);
        }
        uint64_t row = command.row;
        bool write = command.write;
        queue_.pop();
        if (queue_.empty()) return;
        Command& next = queue_.front();
        bool seen = next.ready <= now_ + 1;  // the queue shows the beat behind the one that is issued
        next.ready = std::max(next.ready, now_ + 1);
        if (!seen || next.row == row) return;
        bank.open = false;
        bank.closed = std::max({now_ + 1, bank.activated + config_.tras, write ? now_ + config_.write_recovery : 0});
    }

    // The cycle of a command's column, opening its row first where it has to be.
    uint64_t schedule(const Command& command) {
        Bank& bank = banks_[command.bank];
        uint64_t time = now_;
        if (!bank.open || bank.row != command.row) {
            ++time;
            if (bank.open) {
                time = std::max({time + (command_bank_ != command.bank), bank.activated + config_.tras,
                                 last_write_ + config_.write_recovery}) + config_.trp;
                command_bank_ = command.bank;
            } else {
                time = std::max(time, bank.closed + config_.trp);
            }
            bank.activated = std::max(time + (command_bank_ != command.bank), bank.activated + config_.trc);
            command_bank_ = command.bank;
            bank.open = true;
            bank.row = command.row;
            time = opening_until_ = bank.activated + config_.trcd;
        }
        if (command.write != writing_) {  // the direction of the data bus turns
            time = writing_ ? std::max(time + 2, last_write_ + config_.write_to_read) : time + config_.read_to_write;
            writing_ = command.write;
        }
        return std::max(time + (column_bank_ != command.bank), last_column_ + config_.column_cycles);
    }

    void refresh() {
        next_refresh_ += config_.refresh_interval;
        // Every bank has to come to rest: a row on its way is opened, written data is recovered.
        blocked_until_ = std::max({now_ + 1, opening_until_ + 1, last_write_ + config_.write_recovery}) + config_.refresh_cycles;
        scheduled_ = 0;
        for (Bank& bank : banks_) bank.open = false;
        writing_ = false;
    }

    Ddr3Config config_;
    uint32_t beat_bytes_;
    uint64_t now_ = 1;
    Burst read_, write_;
    uint32_t reads_in_flight_ = 0;                        // accepted, not shown on the port
    uint32_t writes_waiting_ = 0, writes_in_flight_ = 0;  // beats taken and not accepted; accepted and not written
    bool granted_write_ = true;
    Queue<Command, BEATS> queue_;
    Queue<uint64_t, BEATS> shown_at_, responses_;
    Queue<Leaving, BEATS> leaving_;
    Bank banks_[BANKS];
    uint32_t command_bank_ = 0, column_bank_ = 0;  // the last ones that were granted a command
    bool writing_ = false;
    uint64_t scheduled_ = 0;  // cycle of the oldest beat's column command; 0 while not known
    uint64_t opening_until_ = 0;  // the row that was opened last can be used from here on
    uint64_t blocked_until_ = 0, last_column_ = 0, last_write_ = 0, next_refresh_ = 0;
};

}  // namespace sterna
