// The memory controller of a board alone, between the harness's control port and the pins of its chip.
module twin (
    input tick, clk, uart_rx,
    output uart_tx,
    input [29:0] wb_adr, input [31:0] wb_dat_w, input wb_we, wb_cyc,
    output [31:0] wb_dat_r, output wb_ack, user_clk,
    output ck, cke, cs_n, ras_n, cas_n, we_n, output [2:0] ba, output [15:0] a, output [1:0] dm,
    inout [15:0] dq, inout [1:0] dqs
);
    assign uart_tx = uart_rx;
    litedram core (
        .clk, .rst(1'b0), .user_clk,
        .ddram_clk_p(ck), .ddram_cke(cke), .ddram_cs_n(cs_n), .ddram_ras_n(ras_n), .ddram_cas_n(cas_n),
        .ddram_we_n(we_n), .ddram_ba(ba), .ddram_a(a), .ddram_dm(dm), .ddram_dq(dq), .ddram_dqs_p(dqs),
        .wb_ctrl_adr(wb_adr), .wb_ctrl_dat_w(wb_dat_w), .wb_ctrl_dat_r(wb_dat_r), .wb_ctrl_we(wb_we),
        .wb_ctrl_cyc(wb_cyc), .wb_ctrl_stb(wb_cyc), .wb_ctrl_ack(wb_ack), .wb_ctrl_sel(4'hF)
    );
endmodule
