//! Puts `a IS [NOT] DISTINCT FROM b AND c` right: the parser reads it as `a IS DISTINCT FROM (b AND c)`.
//!
//! Parentheses that were written are nodes of their own, so an AND or OR directly on the right side is always the parser's. A
//! chain is taken apart into its operands, in the order of the text, and put together again by precedence.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Mends a whole chain of AND and OR, or an expression that begins one.
pub(crate) fn mend(expr: &mut Expr) {
    if !is_broken(expr) {
        return;
    }
    let mut chain = Chain::default();
    chain.add(take(expr));
    *expr = chain.whole();
}

/// True for AND and OR.
pub(crate) fn is_link(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp {
            op: BinaryOperator::And | BinaryOperator::Or,
            ..
        }
    )
}

fn is_broken(expr: &Expr) -> bool {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, right, .. } if is_link(expr) => open.extend([left.as_ref(), right.as_ref()]),
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => open.push(expr),
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if is_link(right) => return true,
            _ => {}
        }
    }
    false
}

/// Operands, with the operators between them.
#[derive(Default)]
struct Chain {
    operands: Vec<Expr>,
    operators: Vec<BinaryOperator>,
}

impl Chain {
    /// Adds what the expression consists of, from left to right.
    fn add(&mut self, expr: Expr) {
        let mut open = vec![(None, expr)];
        while let Some((before, expr)) = open.pop() {
            match expr {
                Expr::BinaryOp {
                    left,
                    op: op @ (BinaryOperator::And | BinaryOperator::Or),
                    right,
                } => {
                    open.push((Some(op), *right));
                    open.push((before, *left));
                }
                other => {
                    self.operators.extend(before);
                    self.operand(other);
                }
            }
        }
    }

    /// Adds an operand; what it took of the rest of the chain comes after it.
    fn operand(&mut self, expr: Expr) {
        let place = self.operands.len();
        let wrap: fn(Box<Expr>, Box<Expr>) -> Expr = match &expr {
            Expr::UnaryOp {
                op: UnaryOperator::Not, ..
            } => {
                if let Expr::UnaryOp { expr, .. } = expr {
                    self.operand(*expr);
                }
                if let Some(first) = self.operands.get_mut(place) {
                    *first = Expr::UnaryOp {
                        op: UnaryOperator::Not,
                        expr: Box::new(take(first)),
                    };
                }
                return;
            }
            Expr::IsDistinctFrom(_, right) if is_link(right) => Expr::IsDistinctFrom,
            Expr::IsNotDistinctFrom(_, right) if is_link(right) => Expr::IsNotDistinctFrom,
            _ => {
                self.operands.push(expr);
                return;
            }
        };
        if let Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) = expr {
            self.add(*right);
            if let Some(first) = self.operands.get_mut(place) {
                *first = wrap(left, Box::new(take(first)));
            }
        }
    }

    /// AND binds more than OR.
    fn whole(self) -> Expr {
        let joined = |left: Option<Expr>, op, right: Expr| match left {
            None => right,
            Some(left) => Expr::BinaryOp {
                left: Box::new(left),
                op,
                right: Box::new(right),
            },
        };
        let mut whole = None;
        let mut part = None;
        let mut operators = self.operators.into_iter();
        for operand in self.operands {
            part = Some(joined(part.take(), BinaryOperator::And, operand));
            if operators.next() != Some(BinaryOperator::And)
                && let Some(part) = part.take()
            {
                whole = Some(joined(whole.take(), BinaryOperator::Or, part));
            }
        }
        whole.unwrap_or(Expr::value(Value::Null))
    }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Expr {
        Expr::Identifier(name.into())
    }

    fn link(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
        Expr::BinaryOp {
            left: Box::new(left),
            op,
            right: Box::new(right),
        }
    }

    fn distinct(left: &str, right: Expr) -> Expr {
        Expr::IsDistinctFrom(Box::new(ident(left)), Box::new(right))
    }

    /// As the parser reads the text, and what it should have read.
    fn parsed(text: &str) -> Expr {
        let statement = crate::parse::parse(&format!("SELECT {text}")).unwrap();
        let mut expr = crate::functions::selected_expression(statement).unwrap();
        mend(&mut expr);
        expr
    }

    #[test]
    fn distinct_from_ends_before_and_and_or() {
        use BinaryOperator::{And, Or};
        assert_eq!(
            parsed("a IS DISTINCT FROM b AND c"),
            link(distinct("a", ident("b")), And, ident("c"))
        );
        assert_eq!(
            parsed("p AND a IS DISTINCT FROM b OR c"),
            link(link(ident("p"), And, distinct("a", ident("b"))), Or, ident("c"))
        );
        assert_eq!(
            parsed("a IS DISTINCT FROM b AND c IS DISTINCT FROM d OR e"),
            link(
                link(distinct("a", ident("b")), And, distinct("c", ident("d"))),
                Or,
                ident("e")
            )
        );
        assert_eq!(
            parsed("NOT a IS DISTINCT FROM b OR c"),
            link(
                Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr: Box::new(distinct("a", ident("b"))),
                },
                Or,
                ident("c")
            )
        );
    }

    #[test]
    fn what_was_in_parentheses_stays() {
        let inner = Expr::Nested(Box::new(link(ident("b"), BinaryOperator::And, ident("c"))));
        assert_eq!(parsed("a IS DISTINCT FROM (b AND c)"), distinct("a", inner));
    }
}
