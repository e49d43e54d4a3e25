// One token of one sequence in one cooperative launch of BLOCKS blocks.
//
// A layer has four phases between barriers of the whole grid: f, i, g rows to w; o rows to x; gate and up rows to a;
// down rows to x. In each a block quantises the whole input vector for itself and multiplies its share of the rows, of
// which its first warp then makes results. That warp also measures them for the quantiser of the next phase, so that no
// block needs to see the whole vector before it quantises. What does not depend on the token, the weights and norms of
// the next phase, is fetched into registers while the blocks wait for each other.
//
// The state has two halves: a launch reads one and writes the other, so a token that turns out not to be the next one
// leaves no trace.
//
// A tile is what one warp multiplies at a time: one load of 16 bytes a lane, which is 16 columns of a quad (quads.cuh).

constexpr int STATES = LAYERS * HIDDEN_PADDED;  // elements of a half

// The part of a matrix, or of MATRICES matrices of the same shape with their quads in turn, that this block multiplies.
template <int COLUMNS_, int MATRICES_, int QUADS>
struct Share {
    static constexpr int COLUMNS = COLUMNS_, MATRICES = MATRICES_;
    static constexpr int SEGMENTS = Width<COLUMNS>::SEGMENTS, SLICES = divide_up(SEGMENTS, LANES);
    const uint4* weights;
    const Projection* projections;  // with their input's norm

    DEVICE static int first() { return int(i64(blockIdx.x) * QUADS / BLOCKS); }  // quad of each matrix
    DEVICE static int quads() { return int(i64(blockIdx.x + 1) * QUADS / BLOCKS) - first(); }
    DEVICE static int tiles() { return quads() * MATRICES * SLICES; }
    DEVICE static int first_tile(int warp) { return warp * tiles() / WARPS; }
    DEVICE static bool inside(int segment) { return SEGMENTS % LANES == 0 || segment < SEGMENTS; }

    DEVICE uint4 fetch(int tile) const {
        const int segment = tile % SLICES * LANES + threadIdx.x % LANES;
        if (!inside(segment)) return uint4{0, 0, 0, 0};
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
    u64 s1, s2, top[3];  // of the input
    Scalars scalars[3];
    int activations[3];  // their sums
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
    DEVICE Decoder(Shared& shared, const Model* model, int row, int phases, int half)
        : s(shared), phases(phases), half(half) {
        copy_words(&s.model, model, sizeof(Model));
        copy_words(s.sigma, SIGMA_TABLE, sizeof(s.sigma));
        __syncthreads();
        copy_words(s.layers, s.model.layers, sizeof(s.layers));
        x = s.model.x + i64(row) * HIDDEN_PADDED;
        __syncthreads();
    }

    // Embeds a token, and measures it; or only measures row x where there is no token to embed.
    DEVICE void begin(int layer, int token, bool embeds) {
        if (warp != 0) return;
        const OutShare share{};
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, HIDDEN - first);
        Measurer measurer(after_layer(layer), first);
        for (int n = lane; n < rows; n += LANES) {
            if (embeds) {
                const Row value = embed(s.model.embedding[i64(token) * HIDDEN + first + n], s.model.embed_shift);
                x[first + n] = value.value;
                clamped += value.clamped;
            }
            const int value = x[first + n];
            measurer.add(n, value, value);
        }
        hand_on(measurer);
    }

    // All layers from `layer` on, and the head, unless the phases end before.
    DEVICE void run(int layer) {
        for (; layer < LAYERS; layer++) {
            const Layer& l = s.layers[layer];
            if (!meet(GateShare{l.gate_weights, &l.f})) return;
            gates(l);
            if (!meet(OutShare{l.out_weights, &l.o})) return;
            out(l, layer);
            if (!l.has_glu) continue;
            if (!meet(GluShare{l.glu_weights, &l.gate})) return;
            glu(l);
            if (!meet(DownShare{l.down_weights, &l.down})) return;
            down(l, layer);
        }
        if (meet(HeadShare{s.model.head_weights, &s.model.head})) head();
    }

    // The last block to come hands the result over and clears the control block for the next launch.
    DEVICE void finish() {
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
        control->sampled = int(~u32(atomicExch(&control->best, 0)));
        s.model.results[1 - half] = Result{control->sampled, int(atomicExch(&control->clamped, 0))};
        control->finished = 0;
        for (int block = 0; block < BLOCKS; block++) s.model.arrivals[block] = 0;
    }

   private:
    Shared& s;
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    int* x;
    int phases, half, parity = 0;
    unsigned round = 0;
    int clamped = 0;
    u64 best = 0;
    uint4 ahead[AHEAD] = {};
    short4 norms[larger(3 * Width<HIDDEN>::TURNS, Width<INNER>::TURNS)] = {};

    // --- from phase to phase -----------------------------------------------------------------------------------------

    // A barrier of the grid before the phase with this share; false where the token ends here.
    template <class S>
    DEVICE bool meet(const S& share) {
        unsigned* arrivals = s.model.arrivals;
        round++;
        parity ^= 1;
        if (warp == 0) SIGNALS ? signal_store(arrivals + blockIdx.x, round) : signal_add(arrivals);
        fetch(share);
        if (SIGNALS) {
            for (int block = threadIdx.x; block < BLOCKS; block += THREADS) await_signal(arrivals + block, round);
        } else if (threadIdx.x == 0) {
            await_signal(arrivals, round * BLOCKS);
        }
        __syncthreads();
        return phases-- > 0;
    }

    // The norms and the first tiles of a phase.
    template <class S>
    DEVICE void fetch(const S& share) {
        using W = Width<S::COLUMNS>;
#pragma unroll
        for (int turn = 0; turn < W::TURNS; turn++) {
            const int word = turn * THREADS + threadIdx.x;
            if (!W::inside(turn)) break;
#pragma unroll
            for (int m = 0; m < S::MATRICES; m++)
                norms[turn * S::MATRICES + m] = reinterpret_cast<const short4*>(share.projections[m].weight_norm)[word];
        }
        const int first = share.first_tile(warp), last = share.first_tile(warp + 1);
#pragma unroll
        for (int slot = 0; slot < AHEAD; slot++)
            if (first + slot < last) ahead[slot] = share.fetch(first + slot);
    }

    struct NextInput {  // of one projection or three
        const short* norm;  // of the block, none where it is null
        const Projection* projections;
        int count;
    };

    DEVICE NextInput after_layer(int next) const {
        if (next == LAYERS) return {s.model.norm, &s.model.head, 1};
        return {s.layers[next].attn_norm, &s.layers[next].f, 3};
    }

    // Measures the rows that a lane makes of the next input: n, then n + LANES and so on. The norms of the first row are
    // read when it is made, early.
    class Measurer : public Measures<3> {
       public:
        const NextInput next;

        DEVICE Measurer(const NextInput& next, int first) : next(next), first(first) { read(threadIdx.x % LANES); }

        DEVICE void add(int n, int value, int normalised) {
            Measures<3>::add(value, normalised, norm, c);
            read(n + LANES);
        }

       private:
        const int first;
        int norm, c[3];

        DEVICE void read(int n) {  // vectors are padded and rows beyond the last one are not added
            norm = UNIT_NORM, c[0] = c[1] = c[2] = 0;
            if (n >= ROWS) return;
            if (next.norm) norm = next.norm[first + n];
#pragma unroll
            for (int m = 0; m < 3; m++)
                if (m < next.count) c[m] = next.projections[m].weight_norm[first + n];
        }
    };

    // What all lanes have measured, for all blocks.
    DEVICE void hand_on(const Measurer& measurer) {
        const u64 s1 = warp_sum(measurer.s1), s2 = warp_sum(measurer.s2);
        u64* target = measures(1 - parity);
        if (lane == 0) target[0] = s1, target[BLOCKS] = s2;
#pragma unroll
        for (int m = 0; m < 3; m++) {
            if (m >= measurer.next.count) break;
            const u64 top = warp_max(measurer.top[m]);
            if (lane == 0) target[(2 + m) * BLOCKS] = top;
        }
    }

    // Of the input of this phase, or the next: [s1, s2, top of each projection][BLOCKS], from this block on.
    DEVICE u64* measures(int parity) const { return s.model.measures + parity * 5 * BLOCKS + blockIdx.x; }

    // What each block has measured of the input of this phase, spread over the lanes.
    template <class F>
    DEVICE void for_measures(int index, const F& take) const {
        const u64* all = measures(parity) - blockIdx.x + index * BLOCKS;
#pragma unroll
        for (int block = 0; block < BLOCKS; block += LANES)
            if (block + LANES <= BLOCKS || block + lane < BLOCKS) take(all[block + lane]);
    }

    // --- quantiser and product ---------------------------------------------------------------------------------------

    // QUANT of a vector for the projections of a share: activations and their sums, and scalars, the scale of which is
    // ready after the next barrier of the block. The last warps have the least to multiply, so they make the scalars.
    template <class S>
    DEVICE void quantise(const S& share, const int* vector) {
        using W = Width<S::COLUMNS>;
        Elements w[W::TURNS];
#pragma unroll
        for (int turn = 0; turn < W::TURNS; turn++) {
            const int word = turn * THREADS + threadIdx.x;
            if (W::inside(turn)) w[turn] = elements<S::COLUMNS>(vector, word);
        }
        for (int row = threadIdx.x; row < S::tiles() / S::SLICES * QUAD; row += THREADS) s.sums[row] = 0;
        for (int m = WARPS - 1 - warp; m < S::MATRICES; m += WARPS) {
            u64 top = 0;
            for_measures(2 + m, [&](u64 largest) { top = largest > top ? largest : top; });
            top = warp_max(top);
            if (lane == 0) {
                s.top[m] = top, s.activations[m] = 0;
                normaliser_scalars(top, s.scalars[m]);
            }
        }
        if (warp == 0) {
            u64 s1 = 0, s2 = 0;
            for_measures(0, [&](u64 sum) { s1 += sum; });
            for_measures(1, [&](u64 sum) { s2 += sum; });
            s1 = warp_sum(s1), s2 = warp_sum(s2);
            if (lane == 0) s.s1 = s1, s.s2 = s2;
        }
        __syncthreads();
#pragma unroll
        for (int m = 0; m < S::MATRICES; m++) {
            const Scalars scalars = s.scalars[m];
            int sum = 0;
#pragma unroll
            for (int turn = 0; turn < W::TURNS; turn++) {
                const int word = turn * THREADS + threadIdx.x;
                if (!W::inside(turn)) break;
                const short4 four = norms[turn * S::MATRICES + m];
                const int c[4] = {four.x, four.y, four.z, four.w};
                reinterpret_cast<u32*>(s.q)[m * W::WORDS + word] = quantise_word(w[turn].at, c, scalars, sum);
            }
            sum = warp_sum(sum);
            if (lane == 0) atomicAdd(&s.activations[m], sum);
        }
        __syncthreads();
        for (int m = WARPS - 1 - warp; m < S::MATRICES; m += WARPS)
            if (lane == 0) scale_scalars(s.top[m], s.s1, s.s2, share.projections[m], s.scalars[m]);
    }

    // MATMUL of a share whose first tiles have been fetched: the sums of digits of its rows, ready after it.
    template <class S>
    DEVICE void multiply_share(const S& share) {
        const int last = share.first_tile(warp + 1);
        int acc[QUAD] = {};
        for (int start = share.first_tile(warp); start < last; start += AHEAD) {
#pragma unroll
            for (int slot = 0; slot < AHEAD; slot++) {
                const int tile = start + slot;
                if (tile >= last) break;
                const uint4 weights = ahead[slot];
                if (tile + AHEAD < last) ahead[slot] = share.fetch(tile + AHEAD);
                const int quad = tile / S::SLICES, segment = tile % S::SLICES * LANES + lane;
                if (share.inside(segment)) {
                    const uint4 q = s.q[quad % S::MATRICES * S::SEGMENTS + segment];
                    add_word(weights.x, q.x, acc);
                    add_word(weights.y, q.y, acc);
                    add_word(weights.z, q.z, acc);
                    add_word(weights.w, q.w, acc);
                }
                if (tile + 1 == last || (tile + 1) % S::SLICES == 0) add_rows(quad, acc);
            }
        }
        __syncthreads();
    }

    DEVICE static void add_word(u32 weights, u32 q, int (&acc)[QUAD]) {
#pragma unroll
        for (int row = 0; row < QUAD; row++) acc[row] = dot(digits(weights, row), q, acc[row]);
    }

    // Adds what the lanes have of the rows of a quad, and clears it.
    DEVICE void add_rows(int quad, int (&acc)[QUAD]) {
        int total = 0;  // of row `lane`
#pragma unroll
        for (int row = 0; row < QUAD; row++) {
            const int sum = warp_sum(acc[row]);
            total = lane == row ? sum : total;
            acc[row] = 0;
        }
        if (lane < QUAD) atomicAdd(&s.sums[quad * QUAD + lane], total);
    }

    // Scaled row of the matrix with this place among the projections; `row` counts rows of the block's share.
    DEVICE Row result(int row, int matrix) const {
        const Scalars& scalars = s.scalars[matrix];
        return scale_row(row_sum(s.sums[row], row % QUAD, s.activations[matrix]), scalars.mantissa, scalars.shift);
    }

    // --- the phases --------------------------------------------------------------------------------------------------

    DEVICE void gates(const Layer& layer) {
        const GateShare share{layer.gate_weights, &layer.f};
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, HIDDEN - first);
        const int* state = layer.state + half * STATES + first;
        const unsigned short* bounds = layer.lower_bound + first;
        int h = 0, bound = 0;  // of the next row of this lane of the first warp, read early, here and below
        if (warp == 0 && lane < rows) h = state[lane], bound = bounds[lane];
        quantise(share, x);
        Measurer measurer({layer.g_norm, &layer.o, warp == 0}, first);
        multiply_share(share);
        if (warp != 0) return;
        for (int n = lane; n < rows; n += LANES) {
            const int row = n / QUAD * 3 * QUAD + n % QUAD;  // of f; those of i and g follow in quads
            const Row y_f = result(row, 0), y_i = result(row + QUAD, 1), y_g = result(row + 2 * QUAD, 2);
            const Row next = recur(silu(s.sigma, y_i.value), forget(s.sigma, y_f.value, bound), h);
            const Row w = outgate(s.sigma, y_g.value, next.value, layer.product_shift);
            layer.state[(1 - half) * STATES + first + n] = next.value;
            s.model.w[first + n] = w.value;
            measurer.add(n, w.value, y_g.value);
            clamped += y_f.clamped + (y_i.clamped || next.clamped) + (y_g.clamped || w.clamped);
            if (n + LANES < rows) h = state[n + LANES], bound = bounds[n + LANES];
        }
        hand_on(measurer);
    }

    DEVICE void out(const Layer& layer, int index) {
        const NextInput next = layer.has_glu ? NextInput{layer.mlp_norm, &layer.gate, 1} : after_layer(index + 1);
        add_residual(OutShare{layer.out_weights, &layer.o}, s.model.w, next);
    }

    DEVICE void glu(const Layer& layer) {
        const GluShare share{layer.glu_weights, &layer.gate};
        const int first = share.first() * 2, rows = min(share.quads() * 2, INNER - first);
        quantise(share, x);
        Measurer measurer({nullptr, &layer.down, warp == 0}, first);
        multiply_share(share);
        if (warp != 0) return;
        for (int n = lane; n < rows; n += LANES) {
            const int row = n / 2 * QUAD + n % 2;
            const Row gate = result(row, 0), up = result(row + 2, 0);
            const Row a = multiply(up.value, silu(s.sigma, gate.value), layer.glu_shift);
            s.model.a[first + n] = a.value;
            measurer.add(n, a.value, 0);
            clamped += gate.clamped + (up.clamped || a.clamped);
        }
        hand_on(measurer);
    }

    DEVICE void down(const Layer& layer, int index) {
        add_residual(DownShare{layer.down_weights, &layer.down}, s.model.a, after_layer(index + 1));
    }

    // A projection that ends in x.
    template <class S>
    DEVICE void add_residual(const S& share, const int* vector, NextInput next) {
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, HIDDEN - first);
        int operand = warp == 0 && lane < rows ? x[first + lane] : 0;
        quantise(share, vector);
        if (warp != 0) next.count = 0;
        Measurer measurer(next, first);
        multiply_share(share);
        if (warp != 0) return;
        for (int n = lane; n < rows; n += LANES) {
            const Row y = result(n, 0), sum = clamp(i64(operand) + y.value);
            x[first + n] = sum.value;
            measurer.add(n, sum.value, sum.value);
            clamped += y.clamped || sum.clamped;
            if (n + LANES < rows) operand = x[first + n + LANES];
        }
        hand_on(measurer);
    }

    DEVICE void head() {
        const HeadShare share{s.model.head_weights, &s.model.head};
        const int first = share.first() * QUAD, rows = min(share.quads() * QUAD, VOCAB - first);
        quantise(share, x);
        multiply_share(share);
        for (int n = threadIdx.x; n < rows; n += THREADS) {
            const Row logit = result(n, 0);
            s.model.logits[first + n] = logit.value;
            clamped += logit.clamped;
            // Ordered by logit, then by the complement of the index: the lowest index wins ties.
            const u64 key = u64(u32(logit.value) ^ 0x80000000u) << 32 | u32(~u32(first + n));
            best = key > best ? key : best;
        }
    }
};

// Runs `token`, or where it is negative the one sampled by the launch before, through the phases; or, with first_layer =
// LAYERS, only the head on row `row` of x. Reads the state in `half` and writes the other, by which the result goes too.
KERNEL(THREADS, 1) decode(const Model* model, int token, int row, int first_layer, int phases, int half) {
    SHARED(memory);
    Decoder decoder(*reinterpret_cast<Shared*>(memory), model, row, phases, half);
    decoder.begin(first_layer, token < 0 ? model->control->sampled : token, first_layer == 0);
    decoder.run(first_layer);
    decoder.finish();
}
