// QUANT by one block of THREADS threads: sums of squares, largest product, scalars and 8-bit activations of a vector.
constexpr int WARPS = THREADS / LANES;
static_assert(THREADS % LANES == 0 && WARPS <= LANES, "the last reduction is by one warp");

DEVICE constexpr int divide_up(int value, int by) { return (value + by - 1) / by; }

template <int COLUMNS>
struct Width {  // of a projection's input; vectors are padded with zeros
    static constexpr int PADDED = divide_up(COLUMNS, PADDING) * PADDING;
    static constexpr int WORDS = PADDED / 4;           // of four elements
    static constexpr int SEGMENTS = PADDED / SEGMENT;  // 16 bytes of activations, and of the trits of a quad of rows
    static constexpr int TURNS = divide_up(WORDS, THREADS);

    // Whether this thread has a word in this turn.
    DEVICE static bool inside(int turn) { return (turn + 1) * THREADS <= WORDS || turn * THREADS + threadIdx.x < WORDS; }
};
constexpr int HIDDEN_PADDED = Width<HIDDEN>::PADDED, INNER_PADDED = Width<INNER>::PADDED;

// What the scalars of MATRICES projections of one input are made of.
template <int MATRICES>
struct Measures {
    u64 s1 = 0, s2 = 0, top[MATRICES] = {};

    // An element, what the block norm before it normalises, and the mantissas n of the block norm and c of the products.
    DEVICE void add(int value, int normalised, int n, const int (&c)[MATRICES]) {
        const i64 p = int(round_shift(i64(value) * n, PARAM_WIDTH - 1));
        s1 += p * p;
        s2 += i64(normalised) * normalised;
#pragma unroll
        for (int m = 0; m < MATRICES; m++) {
            const i64 product = i64(value) * c[m];
            const u64 magnitude = product < 0 ? -product : product;
            top[m] = magnitude > top[m] ? magnitude : top[m];
        }
    }
};
constexpr int UNIT_NORM = 1 << (PARAM_WIDTH - 1);  // where there is no block norm

// Four activations, and their sum added to `sum`.
DEVICE u32 quantise_word(const int (&w)[4], const int (&c)[4], const Scalars& scalars, int& sum) {
    const u32 bytes = pack_bytes(quantise_element(w[0], c[0], scalars), quantise_element(w[1], c[1], scalars),
                                 quantise_element(w[2], c[2], scalars), quantise_element(w[3], c[3], scalars));
    sum = dot(0x01010101, bytes, sum);
    return bytes;
}

struct Quantiser {  // shared memory of a block
    u64 top[3][WARPS], s1[WARPS], s2[WARPS];
    Scalars scalars[3];
    int sums[3];  // of the activations
};

struct Elements {  // a word of a vector
    int at[4];
};

// Elements beyond the last column are zero, whatever the padding of the vector holds.
template <int COLUMNS>
DEVICE Elements elements(const int* vector, int word) {
    const int4 four = reinterpret_cast<const int4*>(vector)[word];
    Elements result{{four.x, four.y, four.z, four.w}};
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (COLUMNS < Width<COLUMNS>::PADDED && word * 4 + k >= COLUMNS) result.at[k] = 0;
    return result;
}

struct Inputs {  // of a projection, and of the block norm before it
    Elements value, normalised;
};

struct Residual {  // input of f, i, g, of gate and up, and of the head
    static constexpr bool NORMED = true;
    const int* x;
    DEVICE Inputs operator()(int word) const {
        const Elements value = elements<HIDDEN>(x, word);
        return {value, value};
    }
};

struct Gated {  // input of down: only the projection's own norm
    static constexpr bool NORMED = false;
    const int* a;
    DEVICE Inputs operator()(int word) const { return {elements<INNER>(a, word), {}}; }
};

DEVICE void shorts(const short* vector, int word, int (&element)[4]) {
    const short4 four = reinterpret_cast<const short4*>(vector)[word];
    element[0] = four.x, element[1] = four.y, element[2] = four.z, element[3] = four.w;
}

// Activations of one input for MATRICES projections: q[matrix][word], four to a word, and in `shared` scalars and sums.
// All threads call it; it ends with a barrier. `norm` is the block norm's mantissas, unused where Input has none.
template <int COLUMNS, int MATRICES, class Input>
DEVICE void quantise(const Input& input, const short* norm, const Projection* projections, u32* q, Quantiser& shared) {
    using W = Width<COLUMNS>;
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    int w[W::TURNS][4], c[W::TURNS][MATRICES][4];
    Measures<MATRICES> measures;
#pragma unroll
    for (int turn = 0; turn < W::TURNS; turn++) {
        const int word = turn * THREADS + threadIdx.x;
        if (!W::inside(turn)) break;
        const Inputs inputs = input(word);
        int n[4] = {UNIT_NORM, UNIT_NORM, UNIT_NORM, UNIT_NORM};
        if (Input::NORMED) shorts(norm, word, n);
#pragma unroll
        for (int m = 0; m < MATRICES; m++) shorts(projections[m].weight_norm, word, c[turn][m]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int of_element[MATRICES];
#pragma unroll
            for (int m = 0; m < MATRICES; m++) of_element[m] = c[turn][m][k];
            w[turn][k] = inputs.value.at[k];
            measures.add(inputs.value.at[k], inputs.normalised.at[k], n[k], of_element);
        }
    }
    const u64 s1 = warp_sum(measures.s1), s2 = warp_sum(measures.s2);
    if (lane == 0) shared.s1[warp] = s1, shared.s2[warp] = s2;
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
        const u64 largest = warp_max(measures.top[m]);
        if (lane == 0) shared.top[m][warp] = largest;
    }
    __syncthreads();
    for (int m = warp; m < MATRICES; m += WARPS) {
        const bool present = lane < WARPS;
        const u64 largest = warp_max(present ? shared.top[m][lane] : 0);
        const u64 all_s1 = warp_sum(present ? shared.s1[lane] : 0), all_s2 = warp_sum(present ? shared.s2[lane] : 0);
        if (lane == 0) {
            normaliser_scalars(largest, shared.scalars[m]);
            scale_scalars(largest, all_s1, all_s2, projections[m], shared.scalars[m]);
            shared.sums[m] = 0;
        }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
        const Scalars scalars = shared.scalars[m];
        int sum = 0;
#pragma unroll
        for (int turn = 0; turn < W::TURNS; turn++) {
            const int word = turn * THREADS + threadIdx.x;
            if (!W::inside(turn)) break;
            q[m * W::WORDS + word] = quantise_word(w[turn], c[turn][m], scalars, sum);
        }
        sum = warp_sum(sum);
        if (lane == 0) atomicAdd(&shared.sums[m], sum);
    }
    __syncthreads();
}
