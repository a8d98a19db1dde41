// Which configurations of the product kernels are worth timing for a problem, the heuristic's choice first. Plain data, no device.
import type { CudaArch } from '../cuda-kernel.ts';
import { ceilDiv, isVectorised, type MatmulConfig, type MatmulProblem } from './cuda.ts';

/**
 * Stages of a streaming kernel: shared memory for two blocks a multiprocessor, since the next kernel's block fills its stages while this one's ends, and
 * some left for a small kernel between them.
 */
function streamStages(tokenTiles: number, rowTiles: number, arch: CudaArch): number {
  const sums = 4 * tokenTiles * 8 * (rowTiles * 16 + 4) * 4;
  const room = Math.floor(arch.maxSharedBytes / 2) - 10_240 - sums;
  return Math.floor(room / ((rowTiles * 16 + tokenTiles * 8) * 512));
}

/** Every configuration worth timing for the problem, the heuristic's choice first. */
export function matmulCandidates(problem: MatmulProblem, arch: CudaArch): MatmulConfig[] {
  const { m, n, k, gated } = problem;
  if (!isVectorised(problem)) {
    const vectorBytes = problem.dtype === 'float32' ? 4 : 8;
    const vectors = k % vectorBytes === 0 && problem.ldx % vectorBytes === 0;
    return m <= 8 ? [{ kind: 'rows', tokens: m === 1 ? 1 : 8, vectors }] : [{ kind: 'grid' }];
  }
  const hopper = arch.sm === 90;
  const physical = gated ? 2 * n : n;
  const configs: MatmulConfig[] = [];
  if (m <= 16) {
    const tokenTiles = m <= 8 ? 1 : 2;
    for (const rowTiles of [1, 2, 4] as const) {
      for (const warps of [4, 8, 16]) {
        for (const unroll of [2, 4, 8]) {
          if (rowTiles * unroll > 8 || warps * rowTiles * tokenTiles > 32) continue;
          const blocks = Math.max(1, Math.min(1024 / (warps * 32), rowTiles * unroll > 4 ? 512 / (warps * 32) : 99));
          for (const splits of [1, 2, 4, 8]) {
            const resident = arch.multiprocessors * blocks;
            if (splits > 1 && problem.norm !== undefined) continue;
            if (splits > 1 && ceilDiv(physical, rowTiles * 16) * (splits / 2) >= resident) continue;
            const least = warps === 4 && unroll === 2 && splits === 1;
            if (!least && k < warps * unroll * 32 * splits * 0.5) continue;
            configs.push({ kind: 'small', tokenTiles, rowTiles, warps, unroll, blocks, splits });
          }
        }
      }
    }
  }
  const plain = problem.norm === undefined;
  if (plain && hopper && m <= 16 && physical % 16 === 0 && k % 64 === 0) {
    const tokenTiles = m <= 8 ? 1 : 2;
    for (const rowTiles of [1, 2, 3, 4] as const) {
      const stages = streamStages(tokenTiles, rowTiles, arch);
      if (stages >= 3) configs.push({ kind: 'stream', tokenTiles, rowTiles, stages });
    }
  }
  if (plain && hopper && m > 8 && m <= 512 && physical % 16 === 0) {
    const tokens = [16, 32, 64, 128].find((size) => size >= m) ?? 128;
    for (const warpgroups of [1, 2] as const) {
      for (const blocks of [1, 2]) {
        for (const splits of [1, 2, 4, 8]) {
          const stageBytes = (warpgroups * 64 + tokens) * 128;
          const room = Math.floor(arch.maxSharedBytes / blocks) - 4096;
          const stages = Math.min(Math.floor(room / stageBytes), 12);
          if (stages < 3 || stages * stageBytes < tokens * (warpgroups * 64 + 4) * 4) continue;
          if (k / 64 / splits < 4) continue;
          const grid = ceilDiv(physical, warpgroups * 64) * splits * ceilDiv(m, tokens);
          if (splits > 1 && grid / 2 >= arch.multiprocessors * blocks) continue;
          configs.push({ kind: 'swap', tokens, warpgroups, stages, splits, blocks });
        }
      }
    }
  }
  if (plain && hopper && m > 64 && physical % 16 === 0) {
    for (const bn of [256, 192, 128]) {
      for (const cluster of [2, 1] as const) {
        if (gated && (bn / cluster) % 16 !== 0) continue;
        if (cluster === 2 && m <= 128) continue;
        const stages = Math.min(Math.floor((arch.maxSharedBytes - 2048) / ((128 + bn) * 128)), 6);
        configs.push({ kind: 'wgmma', bn, stages, cluster });
      }
    }
  }
  if (plain && m > 8 && !(hopper && m > 1024)) {
    for (const [bm, bn, warpsM, warpsN] of tiles) {
      if (gated && bn / warpsN < 64) continue;
      if (bm >= 2 * m && bm > 16) continue;
      const stages = Math.min(4, Math.floor(arch.maxSharedBytes / ((bm + bn) * 128)));
      if (stages >= 2) configs.push({ kind: 'tile', bm, bn, stages, warpsM, warpsN });
    }
  }
  if (configs.length === 0) return [{ kind: 'grid' }];
  const ranked = configs.map((config) => ({ config, cost: estimate(config, problem, arch) }));
  return ranked.sort((a, b) => a.cost - b.cost).map(({ config }) => config);
}

/** Tile kernels: rows, columns, warps along each. */
const tiles: readonly (readonly [bm: number, bn: number, warpsM: number, warpsN: number])[] = [
  [16, 64, 1, 1],
  [16, 128, 1, 2],
  [32, 128, 1, 2],
  [64, 64, 2, 1],
  [64, 128, 2, 2],
  [128, 128, 2, 2],
  [128, 128, 4, 2],
  [128, 256, 2, 4],
];

/** Ranks configurations without a device: first by kind, as measured on Hopper, then by how evenly blocks fill the multiprocessors. */
function estimate(config: MatmulConfig, problem: MatmulProblem, arch: CudaArch): number {
  const { m, n, k, gated } = problem;
  const physical = gated ? 2 * n : n;
  const sms = arch.multiprocessors;
  const hopper = arch.sm === 90;
  const waves = (blocks: number, resident: number): number => (ceilDiv(blocks, resident) * resident) / blocks;
  switch (config.kind) {
    case 'small': {
      const { rowTiles, warps, unroll, splits } = config;
      const blocks = ceilDiv(physical, rowTiles * 16) * splits;
      // Two row tiles in eight warps where there are rows or k enough, else one in sixteen, with more in flight where multiprocessors are idle; meeting of
      // splits costs some microseconds.
      const wide = ceilDiv(physical, 32) >= 1.3 * sms;
      const narrow = ceilDiv(physical, 16) < sms;
      const head = wide && k <= 2048 && ceilDiv(physical, 16) >= 32 * sms;
      const wanted = head ? [1, 8, 2] : wide || k >= 8192 ? [2, 8, 4] : [1, 16, narrow ? 8 : 2];
      const distance = [rowTiles, warps, unroll].reduce((sum, v, i) => sum + Math.abs(Math.log2(v / wanted[i]!)), 0);
      const idle = Math.max(1, (0.3 * sms) / blocks);
      return (m > 8 && hopper ? 5 : 0) + distance * 0.1 + idle + Math.log2(splits) * 2;
    }
    case 'stream': {
      const { rowTiles } = config;
      const tiles = ceilDiv(physical, rowTiles * 16);
      // Fewer rows than multiprocessors can take sixteen at a time leave some without work: splits of k pay there.
      if (ceilDiv(physical, 16) < sms) return m <= 8 ? 3 : 0.9 + 0.02 * rowTiles;
      return waves(tiles, sms) - 0.5 + 0.1 / rowTiles;
    }
    case 'swap': {
      const { warpgroups, splits, blocks } = config;
      const count = ceilDiv(physical, warpgroups * 64) * splits * ceilDiv(m, config.tokens);
      const many = count > 1.5 * sms;
      // A multiprocessor without a block costs half of what it could bring: the others get its share of the memory's rate.
      const fill = count <= sms ? (1 + sms / count) / 2 : Math.max(1.05, waves(count, sms * blocks) * 0.95);
      const slow =
        (config.tokens === 128 && warpgroups === 1 ? (m > 128 ? 0.6 : many ? 0.2 : 0.05) : 0) +
        (many && blocks === 1 ? 0.1 : 0);
      const shape =
        slow + splits * 0.05 + (splits > 4 ? 0.6 : 0) + (k <= 1024 ? (splits - 1) * 0.6 : 0) + blocks * 0.02;
      return (m <= 8 ? 10 : m <= 128 ? 0 : m <= 256 ? 2 : 3) + fill + shape;
    }
    case 'wgmma': {
      const { bn, cluster } = config;
      const count = ceilDiv(m, 128 * cluster) * cluster * ceilDiv(physical, bn);
      const work = (waves(count, sms) * count * 128 * bn) / (m * physical);
      const overhead = bn === 256 ? 1 : bn === 192 ? 1.06 : 1.12;
      const few = count < (m <= 256 ? (k <= 1024 ? 0.4 : 0.6) : m <= 512 ? 0.3 : 0) * sms;
      const kind = m <= 128 ? (count >= 3 * sms ? -1 : 5) : few ? 5 : 0;
      return kind + work * overhead + (cluster === 2 ? (m >= 2048 ? -0.02 : 0.02) : 0);
    }
    case 'tile': {
      const count = ceilDiv(m, config.bm) * ceilDiv(physical, config.bn);
      const work = (waves(count, sms) * count * config.bm * config.bn) / (m * physical);
      return (hopper ? 10 : m <= 16 ? 5 : 0) + work + 32 / Math.min(config.bm, 64);
    }
    default:
      return 0;
  }
}
