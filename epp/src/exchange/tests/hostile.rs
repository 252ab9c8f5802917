//! Messages in any order, of any content.

use proptest::prelude::*;

use super::*;
use crate::Code;

#[derive(Clone, Debug)]
enum Step {
    Say(Message),
    Empty,
    Pick(bool),
    Refuse,
    Close(Closed),
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let body = prop_oneof![
        Just(PROMPT.as_bytes().to_vec()),
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..2000),
        "(data: |\\{\"model\":\"|target|\"|\\}|\"usage\":\\{|\n){0,6}".prop_map(String::into_bytes),
    ];
    (body, any::<bool>()).prop_map(|(body, end)| Chunk { body, end })
}

fn any_head() -> impl Strategy<Value = Head> {
    let name = prop::sample::select(vec![
        ":method",
        ":path",
        ":status",
        "content-type",
        "upgrade",
        "x-request-id",
        "x-gateway-inference-objective",
        "x",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec!["POST", "/v1/completions", "200", "101", "text/event-stream", "application/json", ""])
            .prop_map(|value| value.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    (prop::collection::vec((name.prop_map(str::to_owned), value), 0..6), any::<bool>())
        .prop_map(|(headers, end)| Head { headers, end })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_head().prop_map(|head| Step::Say(Message::RequestHeaders(head))),
        6 => chunk().prop_map(|chunk| Step::Say(Message::RequestBody(chunk))),
        1 => Just(Step::Say(Message::RequestTrailers)),
        2 => any_head().prop_map(|head| Step::Say(Message::ResponseHeaders(head))),
        4 => chunk().prop_map(|chunk| Step::Say(Message::ResponseBody(chunk))),
        1 => Just(Step::Say(Message::ResponseTrailers)),
        1 => Just(Step::Empty),
        4 => any::<bool>().prop_map(Step::Pick),
        1 => Just(Step::Refuse),
        1 => prop::sample::select(vec![Closed::HalfClosed, Closed::Reset, Closed::Oversized]).prop_map(Step::Close),
    ]
}

fn any_modes() -> impl Strategy<Value = Option<Modes>> {
    let mode = || {
        prop::sample::select(vec![
            BodyMode::None,
            BodyMode::Streamed,
            BodyMode::Buffered,
            BodyMode::BufferedPartial,
            BodyMode::FullDuplex,
        ])
    };
    prop::option::of((mode(), mode()).prop_map(|(request, response)| Modes { request, response }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_order_of_messages_breaks_it(modes in any_modes(), steps in prop::collection::vec(step(), 0..30)) {
        let settings = Settings { request_bytes: 3000, waiting_bytes: 4000, ..Settings::default() };
        let mut script = Script::with(modes, settings);
        let mut over = false;
        for step in steps {
            let before = script.out.len();
            match step {
                Step::Say(message) => _ = script.send(message),
                Step::Empty => _ = script.deliver(Incoming::default()),
                Step::Close(how) => _ = script.close(how),
                Step::Pick(_) | Step::Refuse if !script.out.iter().any(|action| matches!(action, Action::Direct(_))) => {}
                Step::Pick(empty) => _ = script.pick(if empty { &[] } else { &["10.0.0.1:8000"] }, Some("target")),
                Step::Refuse => {
                    script.refuse(Refusal { code: Code::Internal, message: "m".into(), reason: None, retry_after: None });
                }
            }
            prop_assert!(!over || script.out.len() <= before, "it speaks after its end: {:?}", script.out);
            over |= script.out.iter().any(|action| matches!(action, Action::End));
            prop_assert!(script.budget.used() <= 3000);
            let ends = script.out.iter().filter(|action| matches!(action, Action::End)).count();
            let immediates = script.out.iter().filter(|action| matches!(action, Action::Reply(Reply::Immediate(_)))).count();
            prop_assert!(ends <= 1 && immediates <= 1);
            if over {
                prop_assert_eq!(script.budget.used(), 0);
            }
        }
        script.close(Closed::Reset);
        prop_assert_eq!(script.budget.used(), 0);
        let told = script.told();
        let ended = told.iter().filter(|what| *what == "ended").count();
        let completed = told.iter().filter(|what| *what == "completed").count();
        prop_assert!(ended <= 1 && completed <= ended, "{told:?}");
    }

    #[test]
    fn any_cutting_of_a_body_gives_the_same(
        body in "[ -~é]{1,300}", cuts in prop::collection::vec(0_usize..400, 0..8), target in prop::option::of("[a-z]{1,9}"),
    ) {
        let text = format!(r#"{{"prompt":{},"model":"llama"}}"#, serde_json::to_string(&body).unwrap());
        let mut places: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let mut script = Script::duplex();
        script.post();
        for pair in places.windows(2) {
            let body = text.as_bytes()[pair[0]..pair[1]].to_vec();
            script.send(Message::RequestBody(Chunk { body, end: false }));
        }
        script.body("", true).pick(&["10.0.0.1:8000"], target.as_deref());
        let wanted = text.replace(r#""model":"llama""#, &format!(r#""model":"{}""#, target.as_deref().unwrap_or("llama")));
        prop_assert_eq!(bytes(&script.replies()).0, wanted.into_bytes());
    }
}
