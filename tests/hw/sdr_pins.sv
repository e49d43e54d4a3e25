// The ULX3S's memory controller at its pins: the text that is synthesised, ECP5 primitives with their clocks, an SDR chip
// that keeps times and refuses what its data sheet forbids, and traffic on the AXI port. Times in nanoseconds.
`timescale 1ns / 1ps

// ---- ECP5 primitives, ideal but for the phases of the clocks

module EHXPLLL #(
    parameter int CLKI_DIV = 1, CLKFB_DIV = 1, CLKOP_DIV = 8, CLKOS_DIV = 8, CLKOS2_DIV = 8, CLKOS3_DIV = 1,
    parameter int CLKOP_CPHASE = 0, CLKOS_CPHASE = 0, CLKOS2_CPHASE = 0, CLKOS3_CPHASE = 0,
    parameter int CLKOP_FPHASE = 0, CLKOS_FPHASE = 0, CLKOS2_FPHASE = 0, CLKOS3_FPHASE = 0,
    parameter CLKOP_ENABLE = "", CLKOS_ENABLE = "", CLKOS2_ENABLE = "", CLKOS3_ENABLE = "", FEEDBK_PATH = ""
) (input CLKI, RST, STDBY, output reg CLKOP, CLKOS, CLKOS2, CLKOS3, output LOCK);
    localparam real OSCILLATOR = 40.0 * CLKI_DIV / (CLKFB_DIV * CLKOS3_DIV);  // feedback from CLKOS3
    int n = 0;
    function bit level(int divider, int phase);
        return (n + 2 * divider - 1 - phase) % divider < divider / 2;
    endfunction
    always #(OSCILLATOR) begin
        n <= n + 1;
        CLKOP <= level(CLKOP_DIV, CLKOP_CPHASE);
        CLKOS <= level(CLKOS_DIV, CLKOS_CPHASE);
        CLKOS2 <= level(CLKOS2_DIV, CLKOS2_CPHASE);
    end
    assign LOCK = n > 100;
endmodule

module FD1S3BX (input D, CK, PD, output reg Q = 1);
    always @(posedge CK or posedge PD) if (PD) Q <= 1; else Q <= D;
endmodule

module ODDRX1F (input D0, D1, SCLK, output Q);
    assign Q = SCLK ? D0 : D1;
endmodule

module OFS1P3BX (input D, PD, SCLK, SP, output reg Q = 0);
    always @(posedge SCLK) if (SP) Q <= D;
endmodule

module IFS1P3BX (input D, PD, SCLK, SP, output reg Q = 0);
    always @(posedge SCLK) if (SP) Q <= D;
endmodule

module TRELLIS_IO #(parameter DIR = "") (inout B, input I, T, output O);
    assign B = T ? 1'bz : I;
    assign O = B;
endmodule

// ---- The chip: 4 banks of 8192 rows of 512 words of 16 bits

module sdram (
    input clk, cke, cs_n, ras_n, cas_n, we_n, input [1:0] ba, input [12:0] a, input [1:0] dm, inout [15:0] dq
);
    localparam int TRCD = 20, TRP = 20, TRAS = 44, TRC = 66, TRFC = 70, TRRD = 15, TWR = 15, TREFI = 7813;
    localparam real TAC = 6.0, TOH = 2.7;  // of CL 2 at 100 MHz: data comes and stays, after an edge of the clock
    localparam int CL = 2, BL = 2;
    shortint unsigned cells[1 << 24];
    bit [3:0] open, closing;  // closing: with the end of the burst
    bit [12:0] row[4];
    realtime opened[4], closed[4], last_data[4], refreshed, last_opened;
    bit [23:0] write_place, place_at[CL + BL];
    bit [CL + BL - 1:0] reading;
    int write_left = 0, refreshes = 0;
    bit moded = 0, calm = 0;
    bit [15:0] shown;
    bit showing = 0;
    real flight;  // of the clock to the chip and of data back
    initial if (!$value$plusargs("flight=%f", flight)) flight = 5;

    assign dq = showing ? shown : 16'bz;

    task automatic fault(string text);
        $display("FAULT %s at %0t", text, $realtime);
        $fatal;
    endtask

    task automatic precharge(int bank);
        if (open[bank]) begin
            if ($realtime - opened[bank] < TRAS) fault("tRAS");
            if ($realtime - last_data[bank] < TWR) fault("tWR");
            closed[bank] = $realtime;
        end
        open[bank] = 0;
        closing[bank] = 0;
    endtask

    // Data of a read: wrong but for the time from TAC after its edge to TOH after the next one.
    task automatic show(bit [15:0] value, bit more);
        fork begin
            #(flight + TAC) shown = value;
            showing = 1;
            #(10 - TAC + TOH) shown = ~value;
            #(TAC - TOH - 0.1) showing = more;
        end join_none
    endtask
    always @(posedge clk) if (reading[0]) show(cells[place_at[0]], reading[1]);

    always @(posedge clk) begin
        automatic bit [23:0] column = {row[ba], ba, a[8:0]};
        if (cke && refreshes > 8 && $realtime - refreshed > 9 * TREFI) fault("tREFI");
        reading <= reading >> 1;
        for (int i = 0; i < CL + BL - 1; i++) place_at[i] <= place_at[i + 1];
        if (write_left > 0) begin
            for (int lane = 0; lane < 2; lane++)
                if (!dm[lane]) cells[write_place][8 * lane +: 8] = dq[8 * lane +: 8];
            last_data[write_place[10:9]] = $realtime;
            write_left = write_left - 1;
        end
        if (cke && !cs_n) case ({ras_n, cas_n, we_n})
            3'b000: begin  // LOAD MODE
                if (|open) fault("mode with an open row");
                if (a[6:4] != CL || a[2:0] != $clog2(BL) || a[3]) fault("mode that the model does not have");
                moded = 1;
            end
            3'b001: begin  // AUTO REFRESH
                if (|open) fault("refresh with an open row");
                for (int i = 0; i < 4; i++) if ($realtime - closed[i] < TRP) fault("tRP before a refresh");
                refreshed = $realtime;
                refreshes++;
            end
            3'b010: begin  // PRECHARGE
                for (int i = 0; i < 4; i++) if (a[10] || ba == i) precharge(i);
                calm = 1;
            end
            3'b011: begin  // ACTIVATE
                if (!moded || refreshes < 2) fault("command before the start");
                if (open[ba]) fault("row opened twice");
                if ($realtime - closed[ba] < TRP) fault("tRP");
                if ($realtime - opened[ba] < TRC) fault("tRC");
                if ($realtime - last_opened < TRRD) fault("tRRD");
                if ($realtime - refreshed < TRFC) fault("tRFC");
                open[ba] = 1;
                row[ba] = a;
                opened[ba] = $realtime;
                last_opened = $realtime;
            end
            3'b100: begin  // WRITE
                if (!open[ba]) fault("write to a closed row");
                if ($realtime - opened[ba] < TRCD) fault("tRCD");
                if (|reading) fault("write while data of a read is on its way");
                if (showing) fault("both drive the data");
                if (a[0]) fault("burst that wraps");
                for (int lane = 0; lane < 2; lane++)
                    if (!dm[lane]) cells[column][8 * lane +: 8] = dq[8 * lane +: 8];
                last_data[ba] = $realtime;
                write_place = column + 1;
                write_left = BL - 1;
                closing[ba] = a[10];
            end
            3'b101: begin  // READ
                if (!open[ba]) fault("read of a closed row");
                if ($realtime - opened[ba] < TRCD) fault("tRCD");
                if (write_left > 0) fault("read in a burst of a write");
                if (a[0]) fault("burst that wraps");
                // Data comes after the edge before the one that is CL clocks away.
                for (int i = 0; i < BL; i++) begin
                    reading[CL - 2 + i] <= 1;
                    place_at[CL - 2 + i] <= column + 24'(i);
                end
                closing[ba] = a[10];
            end
            default: ;
        endcase
        for (int i = 0; i < 4; i++)
            if (closing[i] && !write_left && $realtime - opened[i] >= TRAS && $realtime - last_data[i] >= TWR)
                precharge(i);
    end
endmodule

// ---- The bench

module sdr_pins;
    localparam int BEATS = 64, BURSTS = 64, TOTAL = 24;  // beats of a burst, bursts in a row, MB in which they lie
    reg clk = 0;
    always #20 clk = ~clk;  // 25 MHz

    wire user_clk, user_rst, locked, init_done;
    wire [12:0] a;
    wire [1:0] ba, dm;
    wire [15:0] dq;
    wire sclk, cke, cs_n, ras_n, cas_n, we_n, ack;
    reg [29:0] adr;
    reg [31:0] dat_w;
    reg cyc = 0;
    reg [24:0] araddr, awaddr;
    reg arvalid = 0, awvalid = 0, wvalid = 0, wlast = 0;
    reg [31:0] wdata;
    reg [3:0] wstrb = 15;
    wire arready, awready, wready, bvalid, rvalid, rlast;
    wire [31:0] rdata;
    litedram core (
        .clk, .rst(1'b0), .pll_locked(locked), .user_clk, .user_rst, .init_done,
        .sdram_a(a), .sdram_ba(ba), .sdram_ras_n(ras_n), .sdram_cas_n(cas_n), .sdram_we_n(we_n), .sdram_cs_n(cs_n),
        .sdram_cke(cke), .sdram_clk(sclk), .sdram_dm(dm), .sdram_dq(dq),
        .wb_ctrl_adr(adr), .wb_ctrl_dat_w(dat_w), .wb_ctrl_we(1'b1), .wb_ctrl_cyc(cyc), .wb_ctrl_stb(cyc),
        .wb_ctrl_ack(ack), .wb_ctrl_sel(4'hF), .wb_ctrl_cti(3'b0), .wb_ctrl_bte(2'b0),
        .user_port_memory_araddr(araddr), .user_port_memory_arvalid(arvalid), .user_port_memory_arready(arready),
        .user_port_memory_arlen(8'(BEATS - 1)), .user_port_memory_arsize(4'd2), .user_port_memory_arburst(2'd1),
        .user_port_memory_arid(1'b0), .user_port_memory_rvalid(rvalid), .user_port_memory_rready(1'b1),
        .user_port_memory_rdata(rdata), .user_port_memory_rlast(rlast),
        .user_port_memory_awaddr(awaddr), .user_port_memory_awvalid(awvalid), .user_port_memory_awready(awready),
        .user_port_memory_awlen(8'(BEATS - 1)), .user_port_memory_awsize(4'd2), .user_port_memory_awburst(2'd1),
        .user_port_memory_awid(1'b0), .user_port_memory_wvalid(wvalid), .user_port_memory_wready(wready),
        .user_port_memory_wdata(wdata), .user_port_memory_wstrb(wstrb), .user_port_memory_wlast(wlast),
        .user_port_memory_bvalid(bvalid), .user_port_memory_bready(1'b1)
    );
    sdram chip (.clk(sclk), .*);

    function automatic bit [31:0] pattern(bit [24:0] address);
        return (32'(address) * 32'h9E3779B1) ^ 32'(address >> 7);
    endfunction
    function automatic bit [24:0] place(int burst, bit scattered);  // of the n-th burst; scattered ones hit all banks
        return scattered ? 25'((burst * 7919) % (TOTAL << 12)) << 8 : 25'(burst) << 8;
    endfunction

    // What the host does to start the memory: address and value of a register; WAIT and cycles; END.
    localparam bit [31:0] WAIT = 32'hFFFF_FFFF, END = 32'hFFFF_FFFE;
    bit [63:0] steps[1024];
    task automatic start;
        string file;
        void'($value$plusargs("steps=%s", file));
        $readmemh(file, steps);
        for (int i = 0; steps[i][63:32] != END; i++) begin
            if (steps[i][63:32] == WAIT) repeat (steps[i][31:0]) @(negedge user_clk);
            else begin
                adr = steps[i][63:34];
                dat_w = steps[i][31:0];
                cyc = 1;
                do @(negedge user_clk); while (!ack);
                cyc = 0;
                repeat (16) @(negedge user_clk);
            end
        end
    endtask

    // Data changes in the low half of the clock, so that a ready seen there is that of the next edge.
    task automatic write(bit [24:0] address, bit inverted, bit [3:0] strobes);
        awaddr = address;
        awvalid = 1;
        #1 while (!awready) @(negedge user_clk) #1;
        @(negedge user_clk) awvalid = 0;
        wstrb = strobes;
        for (int i = 0; i < BEATS; i++) begin
            wdata = pattern(address + 25'(4 * i)) ^ {32{inverted}};
            wlast = i == BEATS - 1;
            wvalid = 1;
            #1 while (!wready) @(negedge user_clk) #1;
            @(negedge user_clk);
        end
        wvalid = 0;
        while (!bvalid) @(negedge user_clk);
    endtask

    int asked, got, wrong;
    bit scattered;
    bit [3:0] kept;  // lanes that hold the inverse
    bit [24:0] at;
    always @(posedge user_clk) if (rvalid) begin
        automatic bit [31:0] right = pattern(at + 25'(4 * (got % BEATS)));
        for (int lane = 0; lane < 4; lane++)
            if (rdata[8 * lane +: 8] != (right[8 * lane +: 8] ^ {8{kept[lane]}})) wrong++;
        got++;
        if (got % BEATS == 0) at = place(got / BEATS, scattered);
    end
    task automatic read_all(bit scatter, bit [3:0] lanes);
        asked = 0; got = 0; scattered = scatter; kept = lanes; at = place(0, scatter);
        while (asked < BURSTS) begin
            araddr = place(asked, scatter);
            arvalid = asked * BEATS - got < 8 * BEATS;  // eight bursts under way
            #1 if (arvalid && arready) asked++;
            @(negedge user_clk);
        end
        arvalid = 0;
        while (got < BURSTS * BEATS) @(negedge user_clk);
    endtask

    realtime begun;
    initial begin
        wait (locked);
        repeat (20) @(negedge user_clk);
        start;
        if (!init_done) begin $display("FAULT not started"); $fatal; end
        for (int i = 0; i < BURSTS; i++) write(place(i, 1), 0, 4'b1111);
        read_all(1, 4'b0000);
        for (int i = 0; i < BURSTS; i++) write(place(i, 0), 0, 4'b1111);
        for (int i = 0; i < BURSTS; i++) write(place(i, 0), 1, 4'b0110);
        begun = $realtime;
        read_all(0, 4'b0110);
        $display("WRONG %0d", wrong);
        $display("RATE %f", 4.0 * BURSTS * BEATS / (($realtime - begun) / 20.0));
        $finish;
    end
    initial #20_000_000 begin $display("FAULT too slow"); $fatal; end
endmodule
