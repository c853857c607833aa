//! Draws images beside the runtime's threads: a few at once, a few more waiting, and no others.
//!
//! A PNG of the largest size takes a core for milliseconds. Drawn where requests are answered, a few hundred of them would
//! hold up redirects.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use tokio::sync::Semaphore;

/// Images that may be drawn or wait for it, for each thread: the last of them waits for a second at most.
pub const IMAGES_PER_THREAD: usize = 32;

/// Why nothing was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawingError {
    /// As many as may wait do: ask again in a second.
    #[error("too many images are being drawn")]
    Busy,
    /// Drawing panicked, or the process ends.
    #[error("the image could not be drawn")]
    Failed,
}

/// Where images are drawn.
#[derive(Debug)]
pub struct Drawing {
    /// Of those that are drawn now.
    threads: Arc<Semaphore>,
    /// Of those and the ones that wait.
    places: Semaphore,
}

impl Drawing {
    /// On half of the machine's cores, and on one at least.
    pub fn on_half_the_cores() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::on((cores / 2).max(1))
    }

    fn on(threads: usize) -> Self {
        Self { threads: Arc::new(Semaphore::new(threads)), places: Semaphore::new(threads * IMAGES_PER_THREAD) }
    }

    /// Draws, once it is its turn.
    pub async fn run<T: Send + 'static>(&self, draw: impl FnOnce() -> T + Send + 'static) -> Result<T, DrawingError> {
        let _place = self.places.try_acquire().map_err(|_| DrawingError::Busy)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| DrawingError::Failed)?;
        let drawn = tokio::task::spawn_blocking(move || {
            // Held until it is drawn, also where nobody waits for it any more.
            let _thread = thread;
            draw()
        });
        drawn.await.map_err(|_| DrawingError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn images_are_drawn_a_few_at_once_and_those_that_find_no_place_are_told() {
        let drawing = Drawing::on(2);
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let asked = IMAGES_PER_THREAD * 2 + 5;
        let drawn = futures::future::join_all((0..asked).map(|_| {
            let (at_once, most, wait) = (at_once.clone(), most.clone(), wait.clone());
            drawing.run(move || {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Until all have asked.
                let _ = wait.lock().unwrap().recv();
                at_once.fetch_sub(1, Ordering::SeqCst);
            })
        }));
        let (drawn, ()) = futures::future::join(drawn, async move {
            tokio::task::yield_now().await;
            drop(go);
        })
        .await;
        assert_eq!(drawn.iter().filter(|answer| **answer == Err(DrawingError::Busy)).count(), 5);
        assert_eq!(drawn.iter().filter(|answer| answer.is_ok()).count(), asked - 5);
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn who_draws_holds_up_nobody_who_answers() {
        let drawing = Arc::new(Drawing::on(1));
        let (go, wait) = mpsc::channel::<()>();
        let drawn = tokio::spawn({
            let drawing = drawing.clone();
            async move { drawing.run(move || wait.recv().is_ok()).await }
        });
        // On the one thread of this runtime: if drawing took it, nothing would be sent.
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        assert_eq!(drawn.await.unwrap(), Ok(true));
    }
}
