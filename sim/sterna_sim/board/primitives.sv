// Behavioural models of the ECP5 primitives that the synthesised tops instantiate (sim/README.md, "The board twin").
//
// Time comes from the harness: `twin.tick` changes every quarter of a clock of the memory (T), and every clock is made
// from it. What a chip does after a delay of its own comes in quarters of T; whatever is finer than that does not exist
// here. Stages and latencies follow Lattice's description of the primitives (FPGA-TN-02035); where that leaves a whole T
// open, the one that fits the latencies that LiteDRAM counts on, which are known to hold on boards.
//
// A clock that is divided or gated is a function of its source's level, never a register that is clocked by it, so edges
// that coincide in the device coincide here: a register sees what was there before them.

// ---- Clocks

// CLKOP is T; the other outputs are in proportion. The oscillator itself is the harness's tick.
module EHXPLLL #(
    parameter int CLKI_DIV = 1, CLKFB_DIV = 1,
    parameter int CLKOP_DIV = 8, CLKOS_DIV = 8, CLKOS2_DIV = 8, CLKOS3_DIV = 8,
    parameter int CLKOP_CPHASE = 0, CLKOS_CPHASE = 0, CLKOS2_CPHASE = 0, CLKOS3_CPHASE = 0,
    parameter int CLKOP_FPHASE = 0, CLKOS_FPHASE = 0, CLKOS2_FPHASE = 0, CLKOS3_FPHASE = 0,
    parameter CLKOP_ENABLE = "ENABLED", CLKOS_ENABLE = "DISABLED", CLKOS2_ENABLE = "DISABLED",
    parameter CLKOS3_ENABLE = "DISABLED", FEEDBK_PATH = "CLKOP", INT_LOCK_STICKY = "ENABLED",
    parameter OUTDIVIDER_MUXA = "DIVA", OUTDIVIDER_MUXB = "DIVB", OUTDIVIDER_MUXC = "DIVC", OUTDIVIDER_MUXD = "DIVD",
    parameter PLLRST_ENA = "DISABLED", STDBY_ENABLE = "DISABLED", DPHASE_SOURCE = "DISABLED", PLL_LOCK_MODE = 0
) (
    input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC,
    input ENCLKOP, ENCLKOS, ENCLKOS2, ENCLKOS3,
    output reg CLKOP, CLKOS, CLKOS2, CLKOS3,
    output LOCK, INTLOCK, REFCLK, CLKINTFB
);
    localparam int LOCK_TICKS = 1000;
    localparam int HALF = 2, HALF_S = 2 * CLKOS_DIV / CLKOP_DIV;  // ticks
    int unsigned lock, op, os;
    initial begin CLKOP = 0; CLKOS = 0; CLKOS2 = 0; CLKOS3 = 0; end
    always @(edge twin.tick)
        if (RST) {lock, op, os} <= '0;
        else begin
            if (lock != LOCK_TICKS) lock <= lock + 1;
            op <= op == HALF - 1 ? 0 : op + 1;
            os <= os == HALF_S - 1 ? 0 : os + 1;
            if (op == 0) CLKOP <= ~CLKOP;
            if (CLKOS_ENABLE == "ENABLED" && os == 0) CLKOS <= ~CLKOS;
        end
    assign LOCK = lock == LOCK_TICKS;
    assign INTLOCK = LOCK;
    assign REFCLK = CLKI;
    assign CLKINTFB = CLKOP;
endmodule

module ECLKBRIDGECS (input CLK0, CLK1, SEL, output ECSOUT);
    assign ECSOUT = SEL ? CLK1 : CLK0;
endmodule

module ECLKSYNCB (input ECLKI, STOP, output ECLKO);
    reg stopped = 0;
    always @(negedge ECLKI) stopped <= STOP;
    assign ECLKO = ECLKI & ~stopped;
endmodule

module CLKDIVF #(parameter GSR = "DISABLED", DIV = "2.0") (input CLKI, RST, ALIGNWD, output CDIVX);
    reg next = 1, last = 0;  // level in the next half of CLKI that is high; in the low half after it
    always @(posedge CLKI) last <= ~RST & next;
    always @(negedge CLKI) next <= RST | ~next;
    assign CDIVX = ~RST & (CLKI ? next : last);
endmodule

// The code for a delay of T/4, which is either there or not.
module DDRDLLA #(parameter FORCE_MAX_DELAY = "NO", GSR = "ENABLED") (
    input CLK, RST, UDDCNTLN, FREEZE,
    output reg DDRDEL, output LOCK, DCNTL0, DCNTL1, DCNTL2, DCNTL3, DCNTL4, DCNTL5, DCNTL6, DCNTL7
);
    reg [4:0] count;
    assign LOCK = &count;
    always @(posedge CLK or posedge RST)
        if (RST) {count, DDRDEL} <= '0;
        else begin
            if (!LOCK && !FREEZE) count <= count + 1'b1;
            if (LOCK && !UDDCNTLN) DDRDEL <= 1'b1;
        end
endmodule

// ---- Registers that platforms use to bring resets into a clock's domain

module FD1S3BX #(parameter GSR = "ENABLED") (input D, CK, PD, output reg Q);
    initial Q = 1;
    always @(posedge CK or posedge PD) if (PD) Q <= 1'b1; else Q <= D;
endmodule

// ---- Pads

module IB (input I, output O);
    assign O = I;
endmodule

module OBZ (input I, T, output O);
    assign O = T ? 1'bz : I;
endmodule

module BB (input I, T, output O, inout B);
    assign B = T ? 1'bz : I;
    assign O = B;
endmodule

module TRELLIS_IO #(parameter DIR = "INPUT") (inout B, input I, T, output O);
    assign B = T ? 1'bz : I;
    assign O = B;
endmodule

// Below the resolution of the twin; DQS_ALIGNED_X2 matches the delay of the strobe's own buffer.
module DELAYG #(parameter DEL_MODE = "USER_DEFINED", DEL_VALUE = 0) (input A, output Z);
    assign Z = A;
endmodule

// ---- Output registers: four bits of SCLK's domain to both levels of a clock of twice its rate

// Bit 0 is on Q 3 T after the edge of SCLK that takes it; with LATE, 5 T.
module twin_output #(parameter bit LATE = 0) (input [3:0] D, input SCLK, ECLK, CLOCK, RST, output Q);
    reg [3:0] taken, held;
    reg [3:0] shift;
    reg rising, falling;
    always @(posedge SCLK or posedge RST)
        if (RST) {taken, held} <= '0;
        else {taken, held} <= {D, taken};
    always @(posedge ECLK or posedge RST)
        if (RST) {shift, falling} <= '0;
        else begin
            shift <= SCLK ? (LATE ? held : taken) : shift >> 2;  // SCLK rises in this very edge, or not
            falling <= shift[1];
        end
    always @(negedge ECLK or posedge RST)
        if (RST) rising <= 1'b0;
        else rising <= shift[0];
    assign Q = CLOCK ? rising : falling;
endmodule

module ODDRX2F #(parameter GSR = "ENABLED") (input D0, D1, D2, D3, SCLK, ECLK, RST, output Q);
    twin_output #(.LATE(1)) register (.D({D3, D2, D1, D0}), .CLOCK(ECLK), .*);
endmodule

module ODDRX2DQSB #(parameter GSR = "ENABLED") (input D0, D1, D2, D3, SCLK, ECLK, DQSW, RST, output Q);
    twin_output register (.D({D3, D2, D1, D0}), .CLOCK(DQSW), .*);
endmodule

// T/4 after the strobe's.
module ODDRX2DQA #(parameter GSR = "ENABLED") (input D0, D1, D2, D3, SCLK, ECLK, DQSW270, RST, output reg Q);
    wire early;
    twin_output register (.D({D3, D2, D1, D0}), .CLOCK(ECLK), .Q(early), .*);
    always @(edge DQSW270) Q <= early;
endmodule

module TSHX2DQSA #(parameter GSR = "ENABLED", REGSET = "SET") (input T0, T1, SCLK, ECLK, DQSW, RST, output Q);
    wire enable;
    twin_output register (.D(~{T1, T1, T0, T0}), .CLOCK(DQSW), .Q(enable), .*);
    assign Q = ~enable;
endmodule

module TSHX2DQA #(parameter GSR = "ENABLED", REGSET = "SET") (input T0, T1, SCLK, ECLK, DQSW270, RST, output reg Q);
    wire enable;
    initial Q = 1;
    twin_output register (.D(~{T1, T1, T0, T0}), .CLOCK(ECLK), .Q(enable), .*);
    always @(edge DQSW270) Q <= ~enable;
endmodule

// ---- Strobe of a byte lane

// Reads: READ, two slots of T, becomes the gate of the strobe. It rises 3 T after SCLK took READ, and T/4 later for each
// step of READCLKSEL, and is T/2 shorter than READ. An edge of the strobe that falls with the gate low closes the way.
// BURSTDET: the way was open for exactly four pulses (modulo four), and the gate closed during the last one.
// Writes: DQSW is ECLK, DQSW270 its inverse T/4 later; PAUSE stops both for a multiple of four T.
module DQSBUFM #(
    parameter int DQS_LI_DEL_VAL = 0, DQS_LO_DEL_VAL = 0,
    parameter DQS_LI_DEL_ADJ = "PLUS", DQS_LO_DEL_ADJ = "PLUS", GSR = "ENABLED"
) (
    input DQSI, READ0, READ1, READCLKSEL0, READCLKSEL1, READCLKSEL2, DDRDEL, ECLK, SCLK, RST, PAUSE,
    input DYNDELAY0, DYNDELAY1, DYNDELAY2, DYNDELAY3, DYNDELAY4, DYNDELAY5, DYNDELAY6, DYNDELAY7,
    input RDLOADN, RDMOVE, RDDIRECTION, WRLOADN, WRMOVE, WRDIRECTION,
    output DQSR90, DQSW, DQSW270, RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2,
    output reg DATAVALID, output BURSTDET, RDCFLAG, WRCFLAG
);
    // Clocks of writes.
    reg [2:0] pause = 0;
    reg [1:0] rest = 0;  // of four T
    wire stopped = pause[2] | (|rest);
    always @(negedge ECLK or posedge RST)
        if (RST) {pause, rest} <= '0;
        else begin
            pause <= {pause[1:0], PAUSE};
            if (stopped) rest <= rest + 1'b1;
        end
    assign DQSW = ECLK & ~stopped;
    reg late = 0;
    always @(edge twin.tick) late <= DQSW;
    assign DQSW270 = DDRDEL ? ~late : ~DQSW;

    // The gate.
    localparam int GATE = 5;  // quarters of T from the first slot to the gate with READCLKSEL 0
    reg [1:0] read = 0;
    reg slot = 0;
    reg [GATE+9:0] line = 0;
    always @(posedge SCLK) read <= {READ1, READ0};
    always @(posedge ECLK) slot <= SCLK ? read[1] : read[0];
    always @(edge twin.tick) line <= {line[GATE+8:0], slot};
    wire [2:0] shift = {READCLKSEL2, READCLKSEL1, READCLKSEL0};
    wire gate = line[32'(shift)+GATE] & line[32'(shift)+GATE+2];

    // The clean strobe, and T/4 later the clock of the input registers.
    reg strobe = 0, open = 0, clean_late = 0;
    wire clean = strobe & open;
    always @(edge twin.tick) {strobe, clean_late} <= {DQSI, clean};
    always @(posedge gate or negedge strobe or posedge RST)
        if (RST) open <= 1'b0;
        else open <= gate;
    assign DQSR90 = DDRDEL ? clean_late : clean;

    // Burst detection.
    reg [1:0] pulses = 0, gated = 0;
    reg some = 0;
    reg was_open = 0;
    always @(edge twin.tick) was_open <= open;
    wire fresh = open & ~was_open;
    always @(negedge clean or posedge fresh)
        if (fresh) {some, pulses} <= '0;
        else {some, pulses} <= {1'b1, pulses + 1'b1};
    always @(negedge DQSR90 or posedge fresh)
        if (fresh) gated <= '0;
        else if (gate) gated <= gated + 1'b1;
    assign BURSTDET = some & ~open & pulses == 0 & gated == 3;

    // Pointers of the lane's FIFO, in pulses. Words of two pulses start in step with SCLK.
    wire clear = RST | PAUSE;
    reg [2:0] written, write_place, taken, read_place;
    reg seen, seen_half, half, moving, word, valid, valid_late;
    wire [2:0] taken_next = taken + 1'b1;
    wire more = moving ? written != taken_next : written != taken;
    always @(posedge DQSR90 or posedge clear) if (clear) written <= '0; else written <= written + 1'b1;
    always @(negedge DQSR90 or posedge clear) if (clear) write_place <= '0; else write_place <= written;
    always @(negedge ECLK or posedge clear)
        if (clear) {half, seen_half} <= '0;
        else {half, seen_half} <= {seen & ~moving, more};
    always @(posedge ECLK or posedge clear)
        if (clear) {seen, moving, word, taken, read_place, valid, valid_late} <= '0;
        else begin
            seen <= more;
            moving <= seen_half & (half | moving);
            if (SCLK) word <= seen_half & (half | moving);
            else {valid, valid_late} <= {word, valid};
            if (moving) taken <= taken_next;
            if (word) read_place <= read_place + 1'b1;
        end
    always @(posedge SCLK) DATAVALID <= valid_late;
    assign {WRPNTR2, WRPNTR1, WRPNTR0} = write_place;
    assign {RDPNTR2, RDPNTR1, RDPNTR0} = read_place;
    assign RDCFLAG = 0;
    assign WRCFLAG = 0;
endmodule

// A bit of the lane's FIFO, and four bits of it to SCLK's domain.
module IDDRX2DQA #(parameter GSR = "ENABLED") (
    input D, DQSR90, ECLK, SCLK, RST, RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2,
    output reg Q0, Q1, Q2, Q3, output QWL
);
    reg first;
    reg [7:0] rising, falling;
    reg [1:0] pulse, older;
    reg [3:0] word;
    wire [2:0] write_place = {WRPNTR2, WRPNTR1, WRPNTR0}, read_place = {RDPNTR2, RDPNTR1, RDPNTR0};
    always @(posedge DQSR90) first <= D;
    always @(negedge DQSR90) {rising[write_place], falling[write_place]} <= {first, D};
    always @(posedge ECLK) begin
        {older, pulse} <= {pulse, falling[read_place], rising[read_place]};
        if (!SCLK) word <= {pulse, older};
    end
    always @(posedge SCLK) {Q3, Q2, Q1, Q0} <= word;
    assign QWL = D;
endmodule
