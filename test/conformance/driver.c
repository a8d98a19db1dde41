// Runs one step of a program outside of Node.js: under an emulator, under sanitizers, or built for another instruction set. The stub that a plan's
// kernels are compiled from is included; a file brings the memory of the program, whose addresses are those of the file's maker.
//   driver step IN OUT THREADS    driver pack FORMAT SHARE ROWS COLUMNS IN OUT
#include STUB
#include <stdio.h>

enum { HAS_CONTENT = 1, COMES_BACK = 2 };
typedef struct {
  uint64_t address, bytes, flags;
  char *memory;
} region;
typedef struct {
  uint64_t regions, launches, count, values, scratch;
} header;

static void fail(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  exit(2);
}
static void get(FILE *f, void *to, size_t bytes) {
  if (fread(to, 1, bytes, f) != bytes) fail("the file is too short");
}
static FILE *file(const char *path, const char *mode) {
  FILE *f = fopen(path, mode);
  if (f == NULL) fail(path);
  return f;
}

static region *regions;
static uint64_t region_count;

/// Where an address of the file's maker is here.
static char *here(uint64_t address) {
  if (address == 0) return NULL;
  for (uint64_t i = 0; i < region_count; i++)
    if (address >= regions[i].address && address < regions[i].address + regions[i].bytes) return regions[i].memory + (address - regions[i].address);
  fail("an address is outside of all memory");
  return NULL;
}

static void step(const char *from, const char *to, int threads) {
  FILE *in = file(from, "rb");
  header h;
  get(in, &h, sizeof h);
  region_count = h.regions;
  regions = calloc(region_count, sizeof *regions);
  for (uint64_t i = 0; i < region_count; i++) get(in, &regions[i], 24);
  for (uint64_t i = 0; i < region_count; i++) {
    regions[i].memory = typert_alloc(regions[i].bytes, 0);
    if (regions[i].memory == NULL) fail("no memory");
    if (regions[i].flags & HAS_CONTENT) get(in, regions[i].memory, regions[i].bytes);
  }
  fclose(in);
  launch *launches = malloc(h.count * sizeof *launches);
  memcpy(launches, here(h.launches), h.count * sizeof *launches);
  for (uint64_t i = 0; i < h.count; i++) {
    launches[i].cache = here((uint64_t)launches[i].cache);
    for (int j = 0; j < MAX_ARGS; j++) launches[i].args[j].data = here((uint64_t)launches[i].args[j].data);
  }
  int32_t *cpus = malloc((size_t)threads * sizeof *cpus);
  for (int i = 0; i < threads; i++) cpus[i] = -1;
  pool *p = typert_pool_open(threads, cpus);
  if (p == NULL) fail("no pool");
  typert_step(p, launches, (int32_t)h.count, (const int64_t *)here(h.values), here(h.scratch), NULL);
  typert_pool_close(p);
  FILE *out = file(to, "wb");
  for (uint64_t i = 0; i < region_count; i++) {
    if ((regions[i].flags & COMES_BACK) && fwrite(regions[i].memory, 1, regions[i].bytes, out) != regions[i].bytes) fail("cannot write");
    typert_free(regions[i].memory, regions[i].bytes);
  }
  fclose(out);
  free(cpus);
  free(launches);
  free(regions);
}

static void pack(int format, int share, int64_t rows, int64_t columns, const char *from, const char *to) {
  FILE *in = file(from, "rb");
  fseek(in, 0, SEEK_END);
  const size_t bytes = (size_t)ftell(in), packed = (size_t)typert_packed_bytes(format, rows, columns);
  rewind(in);
  char *raw = malloc(bytes), *made = aligned_alloc(64, (packed + 63) / 64 * 64);
  get(in, raw, bytes);
  fclose(in);
  typert_pack(format, share, raw, made, rows, columns);
  FILE *out = file(to, "wb");
  if (fwrite(made, 1, packed, out) != packed) fail("cannot write");
  fclose(out);
  free(raw);
  free(made);
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "step") == 0) step(argv[2], argv[3], atoi(argv[4]));
  else if (argc == 8 && strcmp(argv[1], "pack") == 0) pack(atoi(argv[2]), atoi(argv[3]), atoll(argv[4]), atoll(argv[5]), argv[6], argv[7]);
  else fail("usage: step IN OUT THREADS | pack FORMAT SHARE ROWS COLUMNS IN OUT");
  return 0;
}
