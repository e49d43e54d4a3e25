// One token of one sequence in one cooperative launch of BLOCKS blocks.
//
// A layer has four phases between barriers of the whole grid: f, i, g rows to w; o rows to x; gate and up rows to a;
// down rows to x. In each a block quantises the whole input vector for itself and multiplies its share of the rows. The
// weights of the next phase do not depend on the token: they are fetched into registers before the barrier.
//
// A tile is what one warp multiplies at a time: one load of 16 bytes a lane, which is 16 columns of a quad (quads.cuh).

// The part of a matrix, or of MATRICES of the same shape with their quads in turn, that this block multiplies.
template <int COLUMNS, int MATRICES, int QUADS>
struct Share {
    static constexpr int SEGMENTS = Width<COLUMNS>::SEGMENTS, SLICES = divide_up(SEGMENTS, LANES);
    const uint4* weights;

    DEVICE static int first() { return int(i64(blockIdx.x) * QUADS / BLOCKS); }  // quad of each matrix
    DEVICE static int quads() { return int(i64(blockIdx.x + 1) * QUADS / BLOCKS) - first(); }
    DEVICE static int tiles() { return quads() * MATRICES * SLICES; }

    DEVICE uint4 fetch(int tile) const {
        const int segment = tile % SLICES * LANES + threadIdx.x % LANES;
        if (segment >= SEGMENTS) return uint4{0, 0, 0, 0};
        return load_weights(weights + i64(first() * MATRICES + tile / SLICES) * SEGMENTS + segment);
    }
};
using GateShare = Share<HIDDEN, 3, HIDDEN_QUADS>;
using OutShare = Share<HIDDEN, 1, HIDDEN_QUADS>;
using GluShare = Share<HIDDEN, 1, GLU_QUADS>;
using DownShare = Share<INNER, 1, HIDDEN_QUADS>;
using HeadShare = Share<HIDDEN, 1, HEAD_QUADS>;

DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }
DEVICE constexpr int most_rows(int quads) { return divide_up(quads, BLOCKS) * QUAD; }
constexpr int ROWS = larger(larger(3 * most_rows(HIDDEN_QUADS), most_rows(GLU_QUADS)), most_rows(HEAD_QUADS));

struct Shared {
    uint4 q[larger(3 * HIDDEN_PADDED, INNER_PADDED) / SEGMENT];
    Model model;
    Layer layers[LAYERS];
    Quantiser quantiser;
    u64 best[WARPS];
    int clamped[WARPS];
    u32 sigma[SIGMA_SEGMENTS];
    int sums[ROWS];  // of the digits
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "source.py reserves too little shared memory");

DEVICE void copy_words(void* target, const void* source, int bytes) {
    for (int word = threadIdx.x; word < bytes / 4; word += THREADS)
        static_cast<u32*>(target)[word] = static_cast<const u32*>(source)[word];
}

class Decoder {
   public:
    DEVICE Decoder(Shared& shared, const Model* model, int row, int phases) : s(shared), phases(phases) {
        copy_words(&s.model, model, sizeof(Model));
        copy_words(s.sigma, SIGMA_TABLE, sizeof(s.sigma));
        __syncthreads();
        copy_words(s.layers, s.model.layers, sizeof(s.layers));
        x = s.model.x + i64(row) * HIDDEN_PADDED;
        __syncthreads();
    }

    // Each block makes all of x, the same in every block; it is not written again before the next barrier.
    DEVICE void embed_token(int token) {
        for (int n = threadIdx.x; n < HIDDEN; n += THREADS) {
            const Row value = embed(s.model.embedding[i64(token) * HIDDEN + n], s.model.embed_shift);
            x[n] = value.value;
            if (blockIdx.x == 0) clamped += value.clamped;
        }
        __syncthreads();
    }

    // All layers from `layer` on, and the head; false where the phases ended before.
    DEVICE bool run(int layer) {
        if (layer == LAYERS) {
            fetch(HeadShare{s.model.head_weights});
        } else {
            fetch(GateShare{s.layers[layer].gate_weights});
        }
        for (; layer < LAYERS; layer++) {
            gates(s.layers[layer]);
            if (!meet()) return false;
            out(s.layers[layer], layer + 1);
            if (!meet()) return false;
            if (!s.layers[layer].has_glu) continue;
            glu(s.layers[layer]);
            if (!meet()) return false;
            down(s.layers[layer], layer + 1);
            if (!meet()) return false;
        }
        head();
        return true;
    }

    // The last block to come hands the result over and clears the control block for the next launch.
    DEVICE void finish() {
        const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
        const u64 largest = warp_max(best);
        const int total = warp_sum(clamped);
        if (lane == 0) s.best[warp] = largest, s.clamped[warp] = total;
        __syncthreads();
        if (threadIdx.x != 0) return;
        u64 block_best = 0;
        int block_clamped = 0;
        for (int n = 0; n < WARPS; n++) {
            block_best = s.best[n] > block_best ? s.best[n] : block_best;
            block_clamped += s.clamped[n];
        }
        Control* control = s.model.control;
        atomicMax(&control->best, block_best);
        if (block_clamped) atomicAdd(&control->clamped, block_clamped);
        __threadfence();
        if (atomicAdd(&control->finished, 1) != BLOCKS - 1) return;
        __threadfence();
        s.model.result->sampled = int(~u32(atomicExch(&control->best, 0)));
        s.model.result->clamped = int(atomicExch(&control->clamped, 0));
        control->arrivals = control->finished = 0;
    }

   private:
    Shared& s;
    int* x;
    int phases;
    unsigned target = 0;
    int clamped = 0;
    u64 best = 0;
    uint4 ahead[AHEAD] = {};

    // A barrier of the grid; false where the token ends here.
    DEVICE bool meet() {
        target += BLOCKS;
        grid_barrier(&s.model.control->arrivals, target);
        return --phases > 0;
    }

    // The first tiles of the next phase.
    template <class S>
    DEVICE void fetch(const S& share) {
        const int warp = threadIdx.x / LANES, tiles = share.tiles();
#pragma unroll
        for (int slot = 0; slot < AHEAD; slot++) {
            const int tile = warp + slot * WARPS;
            if (tile < tiles) ahead[slot] = share.fetch(tile);
        }
    }

    template <class S>
    DEVICE void clear_sums(const S&) {
        for (int row = threadIdx.x; row < S::tiles() / S::SLICES * QUAD; row += THREADS) s.sums[row] = 0;
    }

    // MATMUL of a share whose first tiles have been fetched: the sums of digits of its rows.
    template <int MATRICES, class S>
    DEVICE void multiply_share(const S& share) {
        const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, tiles = share.tiles();
        for (int start = warp; start < tiles; start += AHEAD * WARPS) {
#pragma unroll
            for (int slot = 0; slot < AHEAD; slot++) {
                const int tile = start + slot * WARPS;
                if (tile >= tiles) break;
                const uint4 weights = ahead[slot];
                if (tile + AHEAD * WARPS < tiles) ahead[slot] = share.fetch(tile + AHEAD * WARPS);
                const int quad = tile / S::SLICES, segment = tile % S::SLICES * LANES + lane;
                int acc[QUAD] = {};
                if (segment < S::SEGMENTS) {
                    const uint4 q = s.q[quad % MATRICES * S::SEGMENTS + segment];
                    add_word(weights.x, q.x, acc);
                    add_word(weights.y, q.y, acc);
                    add_word(weights.z, q.z, acc);
                    add_word(weights.w, q.w, acc);
                }
                int total = 0;  // of row `lane`
#pragma unroll
                for (int row = 0; row < QUAD; row++) {
                    const int sum = warp_sum(acc[row]);
                    total = lane == row ? sum : total;
                }
                if (lane < QUAD) atomicAdd(&s.sums[quad * QUAD + lane], total);
            }
        }
    }

    DEVICE static void add_word(u32 weights, u32 q, int (&acc)[QUAD]) {
#pragma unroll
        for (int row = 0; row < QUAD; row++) acc[row] = dot(digits(weights, row), q, acc[row]);
    }

    // Scaled row of the matrix with this quantiser slot; `row` counts rows of the block's share.
    DEVICE Row result(int row, int matrix) const {
        const Scalars& scalars = s.quantiser.scalars[matrix];
        return scale_row(row_sum(s.sums[row], row % QUAD, s.quantiser.sums[matrix]), scalars.mantissa, scalars.shift);
    }

    DEVICE u32* words() { return reinterpret_cast<u32*>(s.q); }

    DEVICE void gates(const Layer& layer) {
        const GateShare share{layer.gate_weights};
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, HIDDEN - first);
        int* state = layer.state + first;
        int h = threadIdx.x < rows ? state[threadIdx.x] : 0;
        clear_sums(share);
        quantise<HIDDEN, 3>(Residual{x}, layer.attn_norm, &layer.f, words(), s.quantiser);
        multiply_share<3>(share);
        fetch(OutShare{layer.out_weights});
        __syncthreads();
        for (int n = threadIdx.x; n < rows; n += THREADS, h = n < rows ? state[n] : 0) {
            const int row = n / QUAD * 3 * QUAD + n % QUAD;  // of f; those of i and g follow in quads
            const Row y_f = result(row, 0), y_i = result(row + QUAD, 1), y_g = result(row + 2 * QUAD, 2);
            const int f = forget(s.sigma, y_f.value, layer.lower_bound[first + n]);
            const Row next = recur(silu(s.sigma, y_i.value), f, h);
            const Row w = outgate(s.sigma, y_g.value, next.value, layer.product_shift);
            state[n] = next.value;
            s.model.w[first + n] = w.value;
            s.model.y[first + n] = y_g.value;
            clamped += y_f.clamped + (y_i.clamped || next.clamped) + (y_g.clamped || w.clamped);
        }
    }

    struct Product {  // input of o
        static constexpr bool NORMED = true;
        const int *w, *y;
        DEVICE Inputs operator()(int word) const { return {elements<HIDDEN>(w, word), elements<HIDDEN>(y, word)}; }
    };

    DEVICE void out(const Layer& layer, int next) {
        const OutShare share{layer.out_weights};
        const int operand = residual_operand(share);
        clear_sums(share);
        quantise<HIDDEN, 1>(Product{s.model.w, s.model.y}, layer.g_norm, &layer.o, words(), s.quantiser);
        multiply_share<1>(share);
        if (layer.has_glu) {
            fetch(GluShare{layer.glu_weights});
        } else {
            fetch_layer(next);
        }
        __syncthreads();
        add_residual(share, operand);
    }

    DEVICE void glu(const Layer& layer) {
        const GluShare share{layer.glu_weights};
        const int first = share.first() * 2, rows = min(share.quads() * 2, INNER - first);
        clear_sums(share);
        quantise<HIDDEN, 1>(Residual{x}, layer.mlp_norm, &layer.gate, words(), s.quantiser);
        multiply_share<1>(share);
        fetch(DownShare{layer.down_weights});
        __syncthreads();
        for (int n = threadIdx.x; n < rows; n += THREADS) {
            const int row = n / 2 * QUAD + n % 2;
            const Row gate = result(row, 0), up = result(row + 2, 0);
            const Row a = multiply(up.value, silu(s.sigma, gate.value), layer.glu_shift);
            s.model.a[first + n] = a.value;
            clamped += gate.clamped + (up.clamped || a.clamped);
        }
    }

    DEVICE void down(const Layer& layer, int next) {
        const DownShare share{layer.down_weights};
        const int operand = residual_operand(share);
        clear_sums(share);
        quantise<INNER, 1>(Gated{s.model.a}, nullptr, &layer.down, words(), s.quantiser);
        multiply_share<1>(share);
        fetch_layer(next);
        __syncthreads();
        add_residual(share, operand);
    }

    DEVICE void head() {
        const HeadShare share{s.model.head_weights};
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, VOCAB - first);
        clear_sums(share);
        quantise<HIDDEN, 1>(Residual{x}, s.model.norm, &s.model.head, words(), s.quantiser);
        multiply_share<1>(share);
        __syncthreads();
        for (int n = threadIdx.x; n < rows; n += THREADS) {
            const Row logit = result(n, 0);
            s.model.logits[first + n] = logit.value;
            clamped += logit.clamped;
            // Ordered by logit, then by the complement of the index: the lowest index wins ties.
            const u64 key = u64(u32(logit.value) ^ 0x80000000u) << 32 | u32(~u32(first + n));
            best = key > best ? key : best;
        }
    }

    DEVICE void fetch_layer(int layer) {
        if (layer < LAYERS) {
            fetch(GateShare{s.layers[layer].gate_weights});
        } else {
            fetch(HeadShare{s.model.head_weights});
        }
    }

    // The element of x that this thread will add its first row to, read early.
    template <class S>
    DEVICE int residual_operand(const S& share) const {
        const int n = share.first() * QUAD + threadIdx.x;
        return threadIdx.x < share.quads() * QUAD && n < HIDDEN ? x[n] : 0;
    }

    template <class S>
    DEVICE void add_residual(const S& share, int operand) {
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, HIDDEN - first);
        for (int n = threadIdx.x; n < rows; n += THREADS, operand = n < rows ? x[first + n] : 0) {
            const Row y = result(n, 0), sum = clamp(i64(operand) + y.value);
            x[first + n] = sum.value;
            clamped += y.clamped || sum.clamped;
        }
    }
};

// Runs `token` through the phases, or, with first_layer = LAYERS, only the head on row `row` of x.
KERNEL(THREADS, 1) decode(const Model* model, int token, int row, int first_layer, int phases) {
    SHARED(memory);
    Decoder decoder(*reinterpret_cast<Shared*>(memory), model, row, phases);
    if (first_layer == 0) decoder.embed_token(token);
    decoder.run(first_layer);
    decoder.finish();
}
