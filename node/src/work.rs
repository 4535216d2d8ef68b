//! The compute thread: one piece at a time, first come first served, so that pieces share a node
//! equally, as the auction's model says. A throttle makes the node a slower machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::ClockId;
use starling_engine::{DeviceChoice, LoadOptions, Piece, RunError, Tensor, calibrate};

use crate::quota;

/// One inference of one piece.
pub(crate) struct Job {
    /// What to run.
    pub(crate) piece: Arc<Piece>,
    /// On what.
    pub(crate) inputs: Vec<Tensor>,
    /// When it was queued.
    pub(crate) queued: Instant,
    /// Takes the result, on the compute thread: it must not block.
    pub(crate) done: Box<dyn FnOnce(Done) + Send>,
}

/// What came of a job.
pub(crate) struct Done {
    /// The piece's outputs.
    pub(crate) outputs: Result<Vec<Tensor>, RunError>,
    /// Waiting for the thread.
    pub(crate) queue: Duration,
    /// Computing, pauses of the throttle included.
    pub(crate) compute: Duration,
    /// The same as it would be if the node always did so. A job of a few milliseconds has the whole
    /// processor where a quota grants a fifth of it, and the next job waits for that.
    pub(crate) lasting: Duration,
}

/// How a node computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkConfig {
    /// Threads for one operator.
    pub(crate) threads: usize,
    /// The share of one core that may be used; with a share, there is one thread.
    pub(crate) throttle: Option<f64>,
    /// Where.
    pub(crate) options: LoadOptions,
}

/// What a thread of the network does before it waits for packets. On a slow link they come one by
/// one, and a thread that wakes up for each of them costs a weak board up to a third of its
/// processor. While that computes, nobody waits for half a millisecond.
pub(crate) fn let_packets_gather() {
    if COMPUTING.load(Ordering::Relaxed) > 0 {
        thread::sleep(GATHER);
    }
}

/// How many compute threads of this process are at work.
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// The compute thread.
#[derive(Clone)]
pub(crate) struct Worker {
    jobs: mpsc::SyncSender<Task>,
}

enum Task {
    Run(Job),
    Measure { budget: Duration, done: Box<dyn FnOnce(calibrate::Speed) + Send> },
}

impl Worker {
    /// Starts the thread; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn start(config: WorkConfig) -> std::io::Result<Self> {
        let threads = if config.throttle.is_some() { 1 } else { config.threads.max(1) };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("compute-{n}"))
            .build()
            .map_err(std::io::Error::other)?;
        let (jobs, tasks) = mpsc::sync_channel::<Task>(QUEUE_MAX);
        thread::Builder::new().name("compute".to_owned()).spawn(move || {
            let mut granted = Granted::of(config);
            for task in tasks {
                granted.refresh(config);
                pool.install(|| carry_out(task, config, granted.share));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Queues a job. Says whether there was room.
    pub(crate) fn run(&self, job: Job) -> bool {
        self.jobs.try_send(Task::Run(job)).is_ok()
    }

    /// Measures the node's speed in about `budget` of processor time, throttle and the system's
    /// quota included: at full speed, times the share. The pauses themselves come too seldom to be
    /// seen by runs of a millisecond.
    pub(crate) async fn measure(&self, budget: Duration) -> Option<calibrate::Speed> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = Box::new(move |speed| {
            tell.send(speed).ok();
        });
        self.jobs.try_send(Task::Measure { budget, done }).ok()?;
        told.await.ok()
    }
}

fn carry_out(task: Task, config: WorkConfig, granted: f64) {
    let share = config.throttle.unwrap_or(1.0) * granted;
    let mut throttle = Throttle::begin(config.throttle);
    match task {
        Task::Run(job) => {
            let queue = job.queued.elapsed();
            let began = Instant::now();
            COMPUTING.fetch_add(1, Ordering::Relaxed);
            let outputs = job.piece.run_observed(&job.inputs, &mut |_| throttle.pause());
            COMPUTING.fetch_sub(1, Ordering::Relaxed);
            let compute = began.elapsed();
            let worked = throttle.worked().div_f64(share);
            // By the processor's time nobody can tell how long another device takes, nor how long
            // other programs keep the processor, which without a quota is all that slows a node.
            let by_clock = share < 1.0 && config.options.device == DeviceChoice::Cpu;
            let lasting = if by_clock { worked } else { compute };
            (job.done)(Done { outputs, queue, compute, lasting });
        }
        Task::Measure { budget, done } => {
            // As many runs as without a quota, or too few of them would go undisturbed.
            let budget = budget.div_f64(granted).min(MEASURE_MAX);
            let mut speed = if config.is_one_thread() {
                calibrate::measure_by(budget, config.options, &thread_time)
            } else {
                calibrate::measure(budget, config.options)
            };
            speed.units_per_s = speed.units_per_s.map(|units| units * share);
            done(speed);
        }
    }
}

impl WorkConfig {
    /// Whether all computing is on the one compute thread.
    fn is_one_thread(&self) -> bool {
        let few = self.throttle.is_some() || self.threads <= 1;
        few && self.options.device == DeviceChoice::Cpu
    }
}

/// The share of its threads' time that the system lets the node use, which may change.
struct Granted {
    share: f64,
    read: Instant,
}

impl Granted {
    fn of(config: WorkConfig) -> Self {
        let threads = if config.throttle.is_some() { 1 } else { config.threads.max(1) };
        let share = quota::cores().map_or(1.0, |cores| (cores / threads as f64).min(1.0));
        Self { share, read: Instant::now() }
    }

    fn refresh(&mut self, config: WorkConfig) {
        if self.read.elapsed() > QUOTA_EVERY {
            *self = Self::of(config);
        }
    }
}

/// Sleeps after each layer until the thread has used no more than its share of the time gone by.
/// Counts processor time, not time on the wall: a thread that others kept waiting owes nothing.
struct Throttle {
    share: Option<f64>,
    wall: Instant,
    processor: Duration,
}

impl Throttle {
    fn begin(share: Option<f64>) -> Self {
        Self { share, wall: Instant::now(), processor: thread_time() }
    }

    /// The processor's time since the beginning.
    fn worked(&self) -> Duration {
        thread_time().saturating_sub(self.processor)
    }

    fn pause(&mut self) {
        let Some(share) = self.share else { return };
        let used = self.worked();
        let due = used.div_f64(share).saturating_sub(self.wall.elapsed());
        // Shorter sleeps would last longer than asked; the debt stays on the account.
        if due > SLEEP_MIN {
            thread::sleep(due);
        }
    }
}

fn thread_time() -> Duration {
    quota::processor_time(ClockId::ThreadCPUTime)
}

/// The most jobs that wait. Credits and request windows keep the queue far below.
const QUEUE_MAX: usize = 512;
/// How often the quota is read.
const QUOTA_EVERY: Duration = Duration::from_secs(1);
const GATHER: Duration = Duration::from_micros(500);
const SLEEP_MIN: Duration = Duration::from_micros(500);
/// No node takes longer to start, however little of a processor it may use.
const MEASURE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_throttled_node_measures_itself_slower() {
        let speed = async |throttle| {
            let config = WorkConfig { threads: 1, throttle, options: LoadOptions::default() };
            let worker = Worker::start(config).expect("threads");
            worker.measure(Duration::from_millis(200)).await.expect("measured").units_per_s[0]
        };
        let full = speed(Some(1.0)).await;
        let tenth = speed(Some(0.1)).await;
        assert!(tenth < full / 2.0, "{tenth} against {full}");
    }
}
