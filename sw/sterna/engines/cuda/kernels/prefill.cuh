// Many tokens of one sequence, layer by layer: each matrix is read once for all of them, and its products are formed by
// the matrix units. Also the kernel that brings stored trits into quads.
//
// A launch covers tokens 0 to count - 1 of the chunk; rows of x, of the gates f, i, g and of a belong to tokens.

constexpr int TOKEN_TILES = WARP_TOKENS / 8;

DEVICE void count_clamped(const Model* model, int clamped) {
    const int total = warp_sum(clamped);
    if (threadIdx.x % LANES == 0 && total) atomicAdd(&model->control->clamped, total);
}

// --- input of the projections: a block a token -----------------------------------------------------------------------

KERNEL(THREADS, 1) prefill_embed(const Model* model) {
    const int* token = model->tokens + blockIdx.x;
    int* x = model->x + i64(blockIdx.x) * HIDDEN_PADDED;
    int clamped = 0;
    for (int n = threadIdx.x; n < HIDDEN; n += THREADS) {
        const Row value = embed(model->embedding[i64(*token) * HIDDEN + n], model->embed_shift);
        x[n] = value.value;
        clamped += value.clamped;
    }
    count_clamped(model, clamped);
}

// Quantises the vector of this block's token: q[matrix][token][column] and, for the rows, scales[matrix][token].
template <int COLUMNS, int MATRICES, class Input>
DEVICE void quantise_token(const Model* model, const Input& input, const short* norm, const Projection* projections) {
    SHARED(memory);
    constexpr int WORDS = Width<COLUMNS>::WORDS;
    auto* shared = reinterpret_cast<Quantiser*>(memory);
    u32* q = reinterpret_cast<u32*>(shared + 1);
    quantise<COLUMNS, MATRICES>(input, norm, projections, q, *shared);
    for (int word = threadIdx.x; word < MATRICES * WORDS; word += THREADS)
        model->q[(i64(word / WORDS) * CHUNK + blockIdx.x) * WORDS + word % WORDS] = q[word];
    if (threadIdx.x < MATRICES) {
        const Scalars& scalars = shared->scalars[threadIdx.x];
        model->scales[threadIdx.x * CHUNK + blockIdx.x] =
            int4{scalars.mantissa, scalars.shift, shared->sums[threadIdx.x], 0};
    }
}

DEVICE Residual residual_of_token(const Model* model) { return {model->x + i64(blockIdx.x) * HIDDEN_PADDED}; }

KERNEL(THREADS, 1) prefill_quantise_gates(const Model* model, int layer) {
    const Layer& l = model->layers[layer];
    quantise_token<HIDDEN, 3>(model, residual_of_token(model), l.attn_norm, &l.f);
}

KERNEL(THREADS, 1) prefill_quantise_glu(const Model* model, int layer) {
    const Layer& l = model->layers[layer];
    quantise_token<HIDDEN, 1>(model, residual_of_token(model), l.mlp_norm, &l.gate);
}

KERNEL(THREADS, 1) prefill_quantise_down(const Model* model, int layer) {
    const Gated input{model->a + i64(blockIdx.x) * INNER_PADDED};
    quantise_token<INNER, 1>(model, input, nullptr, &model->layers[layer].down);
}

// A gate between two kernels: its value, and in the lowest bit whether it was clamped.
DEVICE int mark(Row row) { return row.value * 2 + row.clamped; }

struct OutputGate {  // input of o, from the states and from y of the output gate, marked
    static constexpr bool NORMED = true;
    const int *h, *y;
    int shift;
    int* clamped;
    DEVICE Inputs operator()(int word) const {
        const Elements states = elements<HIDDEN>(h, word), marked = elements<HIDDEN>(y, word);
        Inputs result;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int y_g = marked.at[k] >> 1;
            const Row w = outgate(SIGMA_TABLE, y_g, states.at[k], shift);
            *clamped += (marked.at[k] & 1) || w.clamped;
            result.value.at[k] = w.value;
            result.normalised.at[k] = y_g;
        }
        return result;
    }
};

KERNEL(THREADS, 1) prefill_quantise_out(const Model* model, int layer) {
    const Layer& l = model->layers[layer];
    const int* gates = model->gates + i64(blockIdx.x) * HIDDEN_PADDED;
    int clamped = 0;
    const OutputGate input{
        gates + CHUNK * HIDDEN_PADDED, gates + 2 * CHUNK * HIDDEN_PADDED, l.product_shift, &clamped};
    quantise_token<HIDDEN, 1>(model, input, l.g_norm, &l.o);
    count_clamped(model, clamped);
}

// --- matrix products -------------------------------------------------------------------------------------------------

// Rows of one of MATRICES matrices for a tile of tokens: 16 quads and 128 tokens a block, 8 quads and 64 tokens a warp.
//
// The fragments of the matrix units take 8 quads by the quads of lanes (lane / 4) and columns by the lane in it; the
// order of columns is free as long as weights and activations agree, so a lane takes a whole segment of both.
// `epilogue(matrix, quad, token, y)` receives the four scaled rows of a quad.
template <int COLUMNS, int MATRICES, int QUADS, class Epilogue>
DEVICE void gemm(const Model* model, const uint4* weights, int count, const Epilogue& epilogue) {
    constexpr int SEGMENTS = Width<COLUMNS>::SEGMENTS;
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int matrix = blockIdx.x % MATRICES;
    const int quad = (blockIdx.x / MATRICES * 2 + warp % 2) * WARP_QUADS + lane / 4;
    const int first_token = (blockIdx.y * 2 + warp / 2) * WARP_TOKENS;
    if (first_token >= count) return;

    // Lanes beyond the last quad or token read the last one; what they get is not used.
    const uint4* a_row = weights + (i64(min(quad, QUADS - 1)) * MATRICES + matrix) * SEGMENTS + lane % 4;
    const uint4* activations = reinterpret_cast<const uint4*>(model->q) + i64(matrix) * CHUNK * SEGMENTS;
    const uint4* b_rows[TOKEN_TILES];
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++)
        b_rows[n] = activations + i64(min(first_token + 8 * n + lane / 4, count - 1)) * SEGMENTS + lane % 4;

    int acc[2][TOKEN_TILES][4] = {};
    uint4 a = load_shared_by_many(a_row), b[TOKEN_TILES];
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) b[n] = load_shared_by_many(b_rows[n]);
    for (int segment = 0; segment < SEGMENTS; segment += 4) {
        const int next = segment + 4 < SEGMENTS ? segment + 4 : segment;  // the last turn reads in vain
        const uint4 next_a = load_shared_by_many(a_row + next);
        uint4 next_b[TOKEN_TILES];
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; n++) next_b[n] = load_shared_by_many(b_rows[n] + next);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 low = half ? a.z : a.x, high = half ? a.w : a.y;
#pragma unroll
            for (int n = 0; n < TOKEN_TILES; n++) {
                const u32 b_low = half ? b[n].z : b[n].x, b_high = half ? b[n].w : b[n].y;
#pragma unroll
                for (int pair = 0; pair < 2; pair++)  // rows 0 and 1 of the quads, then 2 and 3
                    matrix_multiply(acc[pair][n], digits(low, 2 * pair), digits(low, 2 * pair + 1),
                                    digits(high, 2 * pair), digits(high, 2 * pair + 1), b_low, b_high);
            }
        }
        a = next_a;
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; n++) b[n] = next_b[n];
    }

    if (quad >= QUADS) return;
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
        for (int column = 0; column < 2; column++) {
            const int token = first_token + 8 * n + lane % 4 * 2 + column;
            if (token >= count) continue;
            const int4 scale = model->scales[matrix * CHUNK + token];  // mantissa, shift, sum of activations
            Row y[QUAD];
#pragma unroll
            for (int row = 0; row < QUAD; row++)
                y[row] = scale_row(row_sum(acc[row / 2][n][row % 2 * 2 + column], row, scale.z), scale.x, scale.y);
            epilogue(matrix, quad, token, y);
        }
    }
}

struct StoreGates {  // f itself, silu of i and y of g; the latter two marked
    const Model* model;
    const Layer& layer;
    int* clamped;
    DEVICE void operator()(int matrix, int quad, int token, const Row (&y)[QUAD]) const {
        int* target = model->gates + (i64(matrix) * CHUNK + token) * HIDDEN_PADDED + quad * QUAD;
#pragma unroll
        for (int row = 0; row < QUAD; row++) {
            const int n = quad * QUAD + row;
            if (n >= HIDDEN) break;
            if (matrix == 0) {
                target[row] = forget(SIGMA_TABLE, y[row].value, layer.lower_bound[n]);
                *clamped += y[row].clamped;
            } else if (matrix == 1) {
                target[row] = mark({silu(SIGMA_TABLE, y[row].value), y[row].clamped});
            } else {
                target[row] = mark(y[row]);
            }
        }
    }
};

struct AddResidual {
    const Model* model;
    int* clamped;
    DEVICE void operator()(int, int quad, int token, const Row (&y)[QUAD]) const {
        int* x = model->x + i64(token) * HIDDEN_PADDED + quad * QUAD;
#pragma unroll
        for (int row = 0; row < QUAD; row++) {
            if (quad * QUAD + row >= HIDDEN) break;
            const Row sum = clamp(i64(x[row]) + y[row].value);
            x[row] = sum.value;
            *clamped += y[row].clamped || sum.clamped;
        }
    }
};

struct StoreGated {
    const Model* model;
    int shift;
    int* clamped;
    DEVICE void operator()(int, int quad, int token, const Row (&y)[QUAD]) const {
        int* a = model->a + i64(token) * INNER_PADDED + quad * 2;
#pragma unroll
        for (int channel = 0; channel < 2; channel++) {
            if (quad * 2 + channel >= INNER) break;
            const Row &gate = y[channel], &up = y[2 + channel];
            const Row product = multiply(up.value, silu(SIGMA_TABLE, gate.value), shift);
            a[channel] = product.value;
            *clamped += gate.clamped + (up.clamped || product.clamped);
        }
    }
};

KERNEL(GEMM_THREADS, 3) prefill_gates(const Model* model, int layer, int count) {
    const Layer& l = model->layers[layer];
    int clamped = 0;
    gemm<HIDDEN, 3, HIDDEN_QUADS>(model, l.gate_weights, count, StoreGates{model, l, &clamped});
    count_clamped(model, clamped);
}

KERNEL(GEMM_THREADS, 3) prefill_out(const Model* model, int layer, int count) {
    int clamped = 0;
    gemm<HIDDEN, 1, HIDDEN_QUADS>(model, model->layers[layer].out_weights, count, AddResidual{model, &clamped});
    count_clamped(model, clamped);
}

KERNEL(GEMM_THREADS, 3) prefill_glu(const Model* model, int layer, int count) {
    const Layer& l = model->layers[layer];
    int clamped = 0;
    gemm<HIDDEN, 1, GLU_QUADS>(model, l.glu_weights, count, StoreGated{model, l.glu_shift, &clamped});
    count_clamped(model, clamped);
}

KERNEL(GEMM_THREADS, 3) prefill_down(const Model* model, int layer, int count) {
    int clamped = 0;
    gemm<INNER, 1, HIDDEN_QUADS>(model, model->layers[layer].down_weights, count, AddResidual{model, &clamped});
    count_clamped(model, clamped);
}

// --- the recurrence: a thread a channel, token after token -----------------------------------------------------------

constexpr int RECUR_BATCH = 16;  // tokens; the next ones are read while these are computed

struct RecurBatch {
    int f[RECUR_BATCH], v[RECUR_BATCH];

    DEVICE void read(const int* f_row, const int* v_row, int start, int count) {
#pragma unroll
        for (int k = 0; k < RECUR_BATCH; k++) {
            const i64 token = min(start + k, count - 1);  // beyond the last token it is read again, in vain
            f[k] = f_row[token * HIDDEN_PADDED];
            v[k] = v_row[token * HIDDEN_PADDED];
        }
    }
};

KERNEL(RECUR_THREADS, 1) prefill_recur(const Model* model, int layer, int count, int half) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    int clamped = 0;
    if (n < HIDDEN) {
        int* state = model->layers[layer].state + half * STATES + n;
        const int* f = model->gates + n;
        int* v = model->gates + CHUNK * HIDDEN_PADDED + n;  // silu of i, marked; the states take its place
        int h = *state;
        RecurBatch batch = {}, next = {};
        next.read(f, v, 0, count);
        for (int start = 0; start < count; start += RECUR_BATCH) {
            batch = next;
            next.read(f, v, start + RECUR_BATCH, count);
#pragma unroll
            for (int k = 0; k < RECUR_BATCH; k++) {
                if (start + k >= count) break;
                const Row row = recur(batch.v[k] >> 1, batch.f[k], h);
                h = row.value;
                v[i64(start + k) * HIDDEN_PADDED] = h;
                clamped += (batch.v[k] & 1) || row.clamped;
            }
        }
        *state = h;
    }
    count_clamped(model, clamped);
}

// --- stored trits to quads -------------------------------------------------------------------------------------------

// Quad q of `packed` (rows 4q to 4q + 3 of five trits a byte) to quad q * stride of `quads`; a thread a segment. Digits
// beyond the last column are 0, as are the activations there.
KERNEL(THREADS, 1) repack(uint4* quads, const unsigned char* packed, int count, int stride, int columns, int segments) {
    const int index = blockIdx.x * THREADS + threadIdx.x, quad = index / segments, segment = index % segments;
    if (quad >= count) return;
    const int row_bytes = (columns + TRITS_PER_BYTE - 1) / TRITS_PER_BYTE;
    u32 words[4] = {};
    for (int column = 0; column < SEGMENT; column++) {
        const int source = segment * SEGMENT + column;
        if (source >= columns) break;
        int place = 1;
        for (int k = source % TRITS_PER_BYTE; k > 0; k--) place *= 3;
        for (int row = 0; row < QUAD; row++) {
            const int code = packed[(i64(quad) * QUAD + row) * row_bytes + source / TRITS_PER_BYTE];
            words[column / 4] |= u32(code / place % 3) << (8 * (column % 4) + 2 * row);
        }
    }
    quads[i64(quad) * stride * segments + segment] = uint4{words[0], words[1], words[2], words[3]};
}
