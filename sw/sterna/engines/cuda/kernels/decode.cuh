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

class Decoder : private Block {
   public:
    DEVICE Decoder(Shared& shared, const Model* model, int row, int phases, int half)
        : Block(shared), phases(phases), half(half) {
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
        *s.model.arrivals = 0;
    }

   private:
    int* x;
    int phases, half;
    int clamped = 0;
    u64 best = 0;

    // A barrier of the grid before a phase; false where the token ends here.
    template <class S>
    DEVICE bool meet(const S& share) {
        Block::meet(share);
        return phases-- > 0;
    }

    DEVICE NextInput after_layer(int next) const {
        if (next == LAYERS) return {s.model.norm, &s.model.head, 1};
        return {s.layers[next].attn_norm, &s.layers[next].f, 3};
    }

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
