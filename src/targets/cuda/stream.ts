// Streams, events and captured graphs of a CUDA device.
import { track } from '../../base/dispose.ts';
import type {
  CudaDriver,
  DevicePtr,
  EventHandle,
  GraphExecHandle,
  GraphHandle,
  StreamHandle,
} from '../ffi/cuda-driver.ts';
import type { Pointer } from '../ffi/library.ts';

/** Milliseconds for which an event is asked again at once: most steps end within the time that one turn of the event loop takes. */
const patience = 0.05;

/** A queue of device work in order. */
export class Stream implements Disposable {
  readonly handle: StreamHandle;
  readonly #driver: CudaDriver;
  readonly #untrack = track('cuda stream');

  constructor(driver: CudaDriver) {
    this.#driver = driver;
    // CU_STREAM_NON_BLOCKING: no implicit order with the default stream.
    this.handle = driver.handle('cuStreamCreate', (out) => driver.fn.cuStreamCreate(out, 1));
  }

  [Symbol.dispose](): void {
    this.#untrack();
    this.#driver.fn.cuStreamDestroy_v2(this.handle);
  }

  synchronize(): void {
    this.#driver.check('cuStreamSynchronize', this.#driver.fn.cuStreamSynchronize(this.handle));
  }

  /** Waits for all work before what it uses is freed; a device that is lost has none, and disposal does not fail for it. */
  settle(): void {
    this.#driver.fn.cuStreamSynchronize(this.handle);
  }

  /** True when all work given so far is done. */
  get idle(): boolean {
    const code = this.#driver.fn.cuStreamQuery(this.handle);
    if (code === 600) return false; // CUDA_ERROR_NOT_READY
    this.#driver.check('cuStreamQuery', code);
    return true;
  }

  /** Copies from the host in stream order; `data` must stay as it is until then, and be pinned to overlap. */
  upload(target: DevicePtr, data: Pointer, bytes: number): void {
    const code = this.#driver.fn.cuMemcpyHtoDAsync_v2(target, data, bytes, this.handle);
    this.#driver.check('cuMemcpyHtoDAsync', code);
  }

  download(source: DevicePtr, into: Pointer, bytes: number): void {
    const code = this.#driver.fn.cuMemcpyDtoHAsync_v2(into, source, bytes, this.handle);
    this.#driver.check('cuMemcpyDtoHAsync', code);
  }

  copy(target: DevicePtr, source: DevicePtr, bytes: number): void {
    const code = this.#driver.fn.cuMemcpyDtoDAsync_v2(target, source, bytes, this.handle);
    this.#driver.check('cuMemcpyDtoDAsync', code);
  }

  /** Sets `bytes` bytes to `value`. */
  fill(target: DevicePtr, value: number, bytes: number): void {
    const code = this.#driver.fn.cuMemsetD8Async(target, value, bytes, this.handle);
    this.#driver.check('cuMemsetD8Async', code);
  }

  wait(event: Event): void {
    const code = this.#driver.fn.cuStreamWaitEvent(this.handle, event.handle, 0);
    this.#driver.check('cuStreamWaitEvent', code);
  }

  /** Records what `issue` gives to this stream as a graph, and makes it ready to launch. */
  capture(issue: () => void): Graph {
    const driver = this.#driver;
    const graph = this.#record(issue);
    try {
      const exec = driver.handle<GraphExecHandle>('cuGraphInstantiate', (out) =>
        driver.fn.cuGraphInstantiateWithFlags(out, graph, 0),
      );
      return new Graph(driver, exec);
    } finally {
      driver.fn.cuGraphDestroy(graph);
    }
  }

  /** Records anew and puts the changes into `graph`; false when its shape differs and it must be captured instead. */
  recapture(graph: Graph, issue: () => void): boolean {
    const driver = this.#driver;
    const recorded = this.#record(issue);
    try {
      // CUgraphExecUpdateResultInfo: result and two nodes.
      return driver.fn.cuGraphExecUpdate_v2(graph.handle, recorded, new Uint8Array(24)) === 0;
    } finally {
      driver.fn.cuGraphDestroy(recorded);
    }
  }

  #record(issue: () => void): GraphHandle {
    const driver = this.#driver;
    // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile.
    driver.check('cuStreamBeginCapture', driver.fn.cuStreamBeginCapture_v2(this.handle, 1));
    let done = false;
    try {
      issue();
      done = true;
    } finally {
      if (!done) driver.fn.cuStreamEndCapture(this.handle, new BigUint64Array(1));
    }
    return driver.handle('cuStreamEndCapture', (out) => driver.fn.cuStreamEndCapture(this.handle, out));
  }

  launch(graph: Graph): void {
    this.#driver.check('cuGraphLaunch', this.#driver.fn.cuGraphLaunch(graph.handle, this.handle));
  }
}

/** A captured list of launches, replayed with one call. */
export class Graph implements Disposable {
  readonly handle: GraphExecHandle;
  readonly #driver: CudaDriver;
  readonly #untrack = track('cuda graph');

  constructor(driver: CudaDriver, handle: GraphExecHandle) {
    this.#driver = driver;
    this.handle = handle;
  }

  [Symbol.dispose](): void {
    this.#untrack();
    this.#driver.fn.cuGraphExecDestroy(this.handle);
  }
}

/** A point in a stream, with the device's time. */
export class Event implements Disposable {
  readonly handle: EventHandle;
  readonly #driver: CudaDriver;
  readonly #untrack = track('cuda event');

  constructor(driver: CudaDriver) {
    this.#driver = driver;
    this.handle = driver.handle('cuEventCreate', (out) => driver.fn.cuEventCreate(out, 0));
  }

  [Symbol.dispose](): void {
    this.#untrack();
    this.#driver.fn.cuEventDestroy_v2(this.handle);
  }

  record(stream: Stream): void {
    this.#driver.check('cuEventRecord', this.#driver.fn.cuEventRecord(this.handle, stream.handle));
  }

  synchronize(): void {
    this.#driver.check('cuEventSynchronize', this.#driver.fn.cuEventSynchronize(this.handle));
  }

  get done(): boolean {
    const code = this.#driver.fn.cuEventQuery(this.handle);
    if (code === 600) return false; // CUDA_ERROR_NOT_READY
    this.#driver.check('cuEventQuery', code);
    return true;
  }

  /** Resolves when what was recorded is done, without holding up the event loop. */
  async reached(): Promise<void> {
    const until = performance.now() + patience;
    while (!this.done) if (performance.now() > until) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Milliseconds from `start` to this event, both recorded and done. */
  since(start: Event): number {
    const milliseconds = new Float32Array(1);
    const code = this.#driver.fn.cuEventElapsedTime(milliseconds, start.handle, this.handle);
    this.#driver.check('cuEventElapsedTime', code);
    return milliseconds[0]!;
  }
}
