//! Order, fairness and cancellation of slots.

use std::time::Duration;

use futures::future::FutureExt;

use super::*;

fn narrow(slots: usize) -> Arc<Controller> {
    Controller::new(&LakeOptions {
        in_flight_start: slots,
        in_flight_max: slots,
        ..LakeOptions::default()
    })
}

/// Queues a reader whose name comes out when it gets its slot.
fn queue(
    controller: &Arc<Controller>,
    class: ReadClass,
    name: usize,
    out: &Arc<Mutex<Vec<usize>>>,
) -> (Arc<Urgency>, tokio::task::JoinHandle<()>) {
    let (controller, out, urgency) = (controller.clone(), out.clone(), Urgency::new(class));
    let mine = urgency.clone();
    let task = tokio::spawn(async move {
        let slot = controller.acquire(&mine, &mut Turn::default()).await;
        out.lock().push(name);
        tokio::task::yield_now().await;
        drop(slot);
    });
    (urgency, task)
}

async fn until_waiting(controller: &Arc<Controller>, count: usize) {
    while controller.waiting() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn held(controller: &Arc<Controller>) -> Vec<Slot> {
    let mut slots = Vec::new();
    while controller.in_flight().0 < controller.in_flight().1 {
        slots.push(
            controller
                .acquire(&Urgency::new(ReadClass::Demand), &mut Turn::default())
                .await,
        );
    }
    slots
}

#[tokio::test]
async fn the_most_urgent_go_first_and_the_oldest_are_not_forgotten() {
    let controller = narrow(1);
    let slots = held(&controller).await;
    let out = Arc::default();
    let mut tasks = Vec::new();
    for (name, class) in [
        (1000, ReadClass::Upload),
        (2000, ReadClass::Far),
        (3000, ReadClass::Near),
    ] {
        tasks.push(queue(&controller, class, name, &out).1);
        until_waiting(&controller, tasks.len()).await;
    }
    for name in 0..100 {
        tasks.push(queue(&controller, ReadClass::Demand, name, &out).1);
        until_waiting(&controller, tasks.len()).await;
    }
    drop(slots);
    for task in tasks {
        task.await.unwrap();
    }
    let order = out.lock().clone();
    let place = |name: usize| order.iter().position(|at| *at == name).unwrap();
    assert_eq!(&order[..10], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // The three that came first wait no longer than three turns of fairness.
    assert!(place(1000) < 20 && place(2000) < 40 && place(3000) < 60, "{order:?}");
    let demand: Vec<_> = order.iter().filter(|name| **name < 1000).collect();
    assert!(demand.is_sorted());
    assert_eq!(controller.in_flight().0, 0);
}

#[tokio::test]
async fn a_waiting_read_can_become_urgent() {
    let controller = narrow(1);
    let slots = held(&controller).await;
    let out = Arc::default();
    let mut tasks = Vec::new();
    for name in 0..5 {
        tasks.push(queue(&controller, ReadClass::Far, name, &out));
        until_waiting(&controller, tasks.len()).await;
    }
    controller.raise(&tasks[3].0, ReadClass::Demand);
    controller.raise(&tasks[3].0, ReadClass::Near);
    drop(slots);
    for (_, task) in tasks {
        task.await.unwrap();
    }
    assert_eq!(*out.lock(), [3, 0, 1, 2, 4]);
}

#[tokio::test]
async fn who_comes_again_keeps_its_turn() {
    let controller = narrow(1);
    let mut turn = Turn::default();
    let urgency = Urgency::new(ReadClass::Near);
    let failed = controller.acquire(&urgency, &mut turn).await;
    let out = Arc::default();
    let mut tasks = Vec::new();
    for name in 0..3 {
        tasks.push(queue(&controller, ReadClass::Near, name, &out).1);
        until_waiting(&controller, tasks.len()).await;
    }
    let mut again = Box::pin(controller.acquire(&urgency, &mut turn));
    assert!((&mut again).now_or_never().is_none());
    drop(failed);
    let slot = again.now_or_never().unwrap();
    assert!(out.lock().is_empty());
    drop(slot);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*out.lock(), [0, 1, 2]);
}

#[tokio::test]
async fn who_leaves_the_queue_costs_nothing() {
    let controller = narrow(2);
    let slots = held(&controller).await;
    let urgency = Urgency::new(ReadClass::Near);
    for _ in 0..50 {
        assert!(
            controller
                .acquire(&urgency, &mut Turn::default())
                .now_or_never()
                .is_none()
        );
    }
    assert_eq!(controller.waiting(), 0);
    // Granted, but not looked at any more.
    let mut turn = Turn::default();
    let mut waiting = Box::pin(controller.acquire(&urgency, &mut turn));
    assert!((&mut waiting).now_or_never().is_none());
    drop(slots);
    drop(waiting);
    assert_eq!(controller.in_flight().0, 0);
    assert!(
        controller
            .acquire(&urgency, &mut Turn::default())
            .now_or_never()
            .is_some()
    );
}

#[tokio::test]
async fn second_requests_may_exceed_the_limit_a_little() {
    let controller = narrow(8);
    let _slots = held(&controller).await;
    let beyond: Vec<_> = std::iter::from_fn(|| controller.overdraw()).collect();
    assert_eq!(beyond.len(), 2);
}
