//! Joins that multiply rows, beside others.

use super::{ENDLESS, WIDE, fixture, run};

/// A morsel of the join makes 3 · 10⁹ pairs, and there are four: the join would end before so many small queries, each of which
/// needs a worker, if steps went on for a morsel.
///
/// A test that stands still while the server does not may lose by that: it has to win once.
#[tokio::test]
async fn others_are_answered_beside_a_join_that_multiplies() {
    let (_data, server, mut client) = fixture(&["exec.target_partitions=2"]).await;
    run(&mut client, &[WIDE]).await;
    let mut other = server.client().await;
    for _ in 0..5 {
        let info = client.statement(ENDLESS).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let endless = client.fetch(ticket);
        let others = async {
            for _ in 0..20 {
                assert_eq!(other.number("SELECT sum(id) FROM facts").await, 199_990_000);
            }
        };
        tokio::select! {
            biased;
            outcome = endless => assert!(outcome.is_ok(), "{outcome:?}"),
            () = others => return,
        }
    }
    panic!("ten thousand million pairs were quicker each time");
}
