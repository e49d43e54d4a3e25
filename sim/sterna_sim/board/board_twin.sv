// A board's top between the harness and its pins; a chip select that a board ties is tied here.
module twin (
    input tick, clk, uart_rx,
    output uart_tx,
    output ck, cke, cs_n, ras_n, cas_n, we_n, output [2:0] ba, output [14:0] a, output [1:0] dm,
    inout [15:0] dq, inout [1:0] dqs
);
    assign cs_n = 1'b0;
    top top (/* pins */);
endmodule
