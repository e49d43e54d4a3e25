// The form of the weights on the device: two bits a trit, in quads of four rows.
//
// A word holds 4 columns of 4 rows: digit = trit + 1 of row r in bits 2r and 2r + 1 of the byte of its column. So one
// mask and one product of bytes take four columns of a row, and the digits need no shift: the sum of row r comes scaled
// by 4**r, which is at most 2 * 64 * 127 * 65535 < 2**31, and is shifted once. A segment is four words, 16 columns.
//
// Why not the five trits a byte of the file: taking those apart costs 1.5 instructions a trit, this half of one, and
// in a token the fetching of weights hides behind barriers while the arithmetic does not.
constexpr int HIDDEN_QUADS = divide_up(HIDDEN, QUAD);
constexpr int GLU_QUADS = divide_up(INNER, 2);  // rows: gate, gate, up, up of two channels
constexpr int HEAD_QUADS = divide_up(VOCAB, QUAD);

DEVICE constexpr u32 digits(u32 word, int row) { return word & (0x03030303u << (2 * row)); }

// The sum of a row of trits from the sum of its digits, scaled by 4**row, and the sum of the activations.
DEVICE int row_sum(int scaled, int row, int activations) { return (scaled >> (2 * row)) - activations; }
