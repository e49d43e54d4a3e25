// The scalar functions of docs/numerics.md. Constants in capitals come from sterna.spec.numerics (source.py).
using i64 = long long;
using u64 = unsigned long long;
using u32 = unsigned int;

struct Row {  // a row result, and whether it was clamped
    int value;
    bool clamped;
};

struct Scalars {  // what one token and projection need, see numerics.QuantiserScalars
    int exponent, reciprocal, mantissa, shift;
};

DEVICE i64 round_shift(i64 value, int shift) { return (value + ((i64(1) << shift) >> 1)) >> shift; }

DEVICE Row clamp(i64 exact) {
    const i64 value = exact < VALUE_MIN ? VALUE_MIN : exact > VALUE_MAX ? VALUE_MAX : exact;
    return {int(value), value != exact};
}

// Logistic function of a gate input; an entry of the table is a base above its slope.
DEVICE int sigma(const u32* table, int x) {
    const int magnitude = x < 0 ? -x : x;
    int upper = GATE_ONE;
    if (magnitude < SIGMA_SEGMENTS << SIGMA_SEGMENT_BITS) {
        const u32 entry = table[magnitude >> SIGMA_SEGMENT_BITS];
        const u32 offset = magnitude & ((1 << SIGMA_SEGMENT_BITS) - 1);
        const u32 slope = entry & ((1 << SIGMA_SLOPE_WIDTH) - 1);
        const u32 fine = ((entry >> SIGMA_SLOPE_WIDTH) << SIGMA_SEGMENT_BITS) + slope * offset;
        constexpr int shift = SIGMA_TABLE_FRAC + SIGMA_SEGMENT_BITS - GATE_FRAC;
        upper = GATE_ONE / 2 + int((fine + (1 << shift >> 1)) >> shift);
    }
    return x < 0 ? GATE_ONE - upper : upper;
}

DEVICE int silu(int x, int gate) { return int(round_shift(i64(x) * gate, GATE_FRAC)); }

DEVICE int silu(const u32* table, int x) { return silu(x, sigma(table, x)); }

// --- row operations -------------------------------------------------------------------------------------------------

DEVICE Row scale_row(int row_sum, int mantissa, int shift) { return clamp(round_shift(i64(row_sum) * mantissa, shift)); }

DEVICE Row embed(int element, int shift) { return scale_row(element, 1 << EMBED_MANTISSA_BITS, shift); }

DEVICE int forget(const u32* table, int y, int lower_bound) {
    return lower_bound + int(round_shift(i64(GATE_ONE - lower_bound) * sigma(table, y), GATE_FRAC));
}

// h' from the forget gate f, the input v = silu(y_i) and the state h.
DEVICE Row recur(int v, int f, int h) {
    constexpr int align = STATE_FRAC - GATE_IN_FRAC;
    return clamp(round_shift(i64(f) * h + i64(v) * (GATE_ONE - f) * (1 << align), GATE_FRAC));
}

DEVICE Row multiply(int y, int other, int shift) { return clamp(round_shift(i64(y) * other, shift)); }

DEVICE Row outgate(const u32* table, int y, int h, int shift) {
    const int gate = sigma(table, int(round_shift(h, STATE_FRAC - GATE_IN_FRAC)));
    return multiply(y, silu(h, gate), shift);
}

// --- the quantiser --------------------------------------------------------------------------------------------------

DEVICE int bit_length(u64 value) { return 64 - leading_zeros(value); }

// min((s2 * eps_mantissa) >> eps_shift, 2**64 - 1); the mantissa has 16 bits, the shift is 0..127.
DEVICE u64 epsilon_share(u64 s2, const Projection& p) {
    const u64 high = multiply_high(s2, p.eps_mantissa), low = s2 * p.eps_mantissa;
    if (p.eps_shift >= 64) return high >> (p.eps_shift - 64);
    if (high >> p.eps_shift) return ~u64(0);
    return p.eps_shift ? high << (64 - p.eps_shift) | low >> p.eps_shift : low;
}

// floor(dividend / divisor) below 2**21, by one division of floats: it is off by one at most, which the remainder tells.
DEVICE u32 divide(u64 dividend, u32 divisor) {
    u32 quotient = u32(float(dividend) / float(divisor));
    const int rest = int(u32(dividend) - quotient * divisor);
    return rest < 0 ? quotient - 1 : u32(rest) >= divisor ? quotient + 1 : quotient;
}

// floor(sqrt(value)) of a value of 47 or 48 bits; the root of floats is off by one at most.
DEVICE u32 root_of(u64 value) {
    const u32 root = u32(square_root(float(value)));
    const int rest = int(u32(value) - root * root);
    return rest < 0 ? root - 1 : u32(rest) > 2 * root ? root + 1 : root;
}

DEVICE int normalised_largest(u64 largest, int exponent) {
    return int(round_shift(i64(largest) << NORMALISED_BITS, exponent));
}

// The part of numerics.quantiser_scalars that the activations wait for.
DEVICE void normaliser_scalars(u64 largest, Scalars& result) {
    result.exponent = largest ? bit_length(largest) : 0;
    result.reciprocal = largest ? divide(u64(Q_MAX) << RECIPROCAL_FRAC, normalised_largest(largest, result.exponent)) : 0;
}

// The part that the rows wait for, after the first one.
DEVICE void scale_scalars(u64 largest, u64 s1, u64 s2, const Projection& p, Scalars& result) {
    result.mantissa = result.shift = 0;
    if (largest == 0) return;
    const u64 share = epsilon_share(s2, p), rest = s1 + u64(p.eps_const);  // below 2**63 + 2**40: no carry
    u64 mean = share > ~rest ? ~u64(0) : rest + share;
    if (mean == 0) mean = 1;
    const int up = (2 * ROOT_BITS - bit_length(mean)) & ~1;
    const u32 root = root_of(up >= 0 ? mean << up : mean >> -up);
    const i64 normalised = normalised_largest(largest, result.exponent);
    const u32 quotient = divide((normalised * p.mantissa) << QUOTIENT_EXTRA, root);
    const int length = bit_length(quotient);
    const int cut = length > SCALE_MANTISSA_BITS ? length - SCALE_MANTISSA_BITS : 0;
    const int shift = QUOTIENT_EXTRA - cut + NORMALISED_BITS - result.exponent - p.exponent - (up >> 1);
    result.mantissa = int(quotient >> cut);
    result.shift = shift < 0 ? 0 : shift > MAX_SHIFT ? MAX_SHIFT : shift;
}

// 8-bit activation of w * c. Where the exponent is below NORMALISED_BITS normalising shifts left and rounds nothing. The
// reciprocal is moved up so that the result is the upper half of the second product.
DEVICE int quantise_element(int w, int c, const Scalars& s) {
    constexpr int up = 32 - RECIPROCAL_FRAC;
    const int left = s.exponent < NORMALISED_BITS ? NORMALISED_BITS - s.exponent : 0;
    const int right = s.exponent < NORMALISED_BITS ? 0 : s.exponent - NORMALISED_BITS;
    const int normalised = int(multiply_add(w, int(u32(c) << left), (i64(1) << right) >> 1) >> right);
    return int(multiply_add(normalised, s.reciprocal << up, i64(1) << 31) >> 32);
}
