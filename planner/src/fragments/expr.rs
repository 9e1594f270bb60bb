//! DataFusion's physical expressions as expressions of fragments.
//!
//! What has no node of its own becomes a host function of the columns it reads, when it is a function of those alone.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Operator, ScalarUDF};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use trireme_device_api::{BinaryOperator, DatePart, Expr, Function, Interval, Node, Type, Value};

use super::host;
use super::parameter::{PARAMETER_FUNCTION, ParameterFunction, Parameters};
use crate::semantics::plain;

/// What an expression may refer to.
pub(super) struct Scope<'a> {
    /// Columns of DataFusion's input.
    pub(super) schema: &'a Schema,
    /// The same columns in the relation: a column of the expression by position.
    pub(super) columns: &'a [Expr],
    /// Where the value of a scalar subquery stands.
    pub(super) subquery: &'a dyn Fn(&ScalarSubqueryExpr) -> Option<Expr>,
    /// Parameters that were met.
    pub(super) parameters: &'a RefCell<Parameters>,
}

type Lowered = Result<Expr, String>;

impl Scope<'_> {
    /// The expression, or the reason why there is none.
    pub(super) fn lower(&self, expr: &Arc<dyn PhysicalExpr>) -> Lowered {
        let plain = plain(expr).map_err(|error| error.strip_backtrace())?;
        // On the host DataFusion evaluates, which needs the expression as the rules made it.
        self.part(&plain).or_else(|reason| self.on_host(expr, reason))
    }

    /// A part of an expression in plain operators.
    fn part(&self, expr: &Arc<dyn PhysicalExpr>) -> Lowered {
        self.native(expr).or_else(|reason| {
            // DataFusion evaluates these otherwise than their plain form says: the whole expression is for it then.
            if self.compares_floats(expr) || self.is_guarded(expr) {
                Err(reason)
            } else {
                self.on_host(expr, reason)
            }
        })
    }

    fn on_host(&self, expr: &Arc<dyn PhysicalExpr>, reason: String) -> Lowered {
        if expr.is::<Column>() || expr.is::<Literal>() {
            return Err(reason);
        }
        let data_type = self.data_type(expr)?;
        host::whole(expr, data_type, &|column| self.column(column)).map_err(|_| reason)
    }

    /// True when a part of it compares floats, which DataFusion does otherwise than its plain form says.
    fn compares_floats(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        let is_float = |operand: &Arc<dyn PhysicalExpr>| {
            let data_type = operand.data_type(self.schema);
            data_type.map_or(true, |data_type| data_type.is_floating())
        };
        let binary = expr.downcast_ref::<BinaryExpr>();
        let compares = binary.is_some_and(|binary| binary.op().supports_propagation())
            || expr.is::<InListExpr>()
            || expr.is::<CaseExpr>()
            || expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(host::is_extreme);
        let children = expr.children();
        compares && children.iter().any(|child| is_float(child))
            || children.into_iter().any(|child| self.compares_floats(child))
    }

    /// True when a part of it was checked arithmetic, or kept from failing by what stands before it.
    fn is_guarded(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        let binary = expr.downcast_ref::<BinaryExpr>();
        let guarded = binary.is_some_and(|binary| match binary.op() {
            Operator::And | Operator::Or => true,
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                let data_type = binary.data_type(self.schema);
                data_type.map_or(true, |data_type| data_type.is_integer() || data_type.is_decimal())
            }
            _ => false,
        });
        guarded || expr.children().into_iter().any(|child| self.is_guarded(child))
    }

    fn data_type(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Type, String> {
        let data_type = expr.data_type(self.schema).map_err(|error| error.strip_backtrace())?;
        Type::from_arrow(&data_type)
    }

    fn native(&self, expr: &Arc<dyn PhysicalExpr>) -> Lowered {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return self.column(column);
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return lower_literal(literal.value());
        }
        if let Some(subquery) = expr.downcast_ref::<ScalarSubqueryExpr>() {
            return (self.subquery)(subquery).ok_or_else(|| "a scalar subquery stands here".to_owned());
        }
        let data_type = self.data_type(expr)?;
        let node = if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return self.binary(binary, data_type);
        } else if let Some(not) = expr.downcast_ref::<NotExpr>() {
            Node::Not(self.boxed(not.arg())?)
        } else if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            Node::Negate(self.boxed(negative.arg())?)
        } else if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
            Node::IsNull(self.boxed(is_null.arg())?)
        } else if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
            Node::IsNotNull(self.boxed(is_not_null.arg())?)
        } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return self.cast(cast.expr(), data_type, cast.cast_options().safe);
        } else if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
            return self.cast(cast.expr(), data_type, true);
        } else if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            self.case(case)?
        } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
            return self.in_list(list);
        } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            self.like(like)?
        } else if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
            return self.call(expr, call, data_type);
        } else {
            return Err(format!("{expr} is not fused"));
        };
        Ok(Expr { node, data_type })
    }

    fn boxed(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Box<Expr>, String> {
        self.part(expr).map(Box::new)
    }

    fn column(&self, column: &Column) -> Lowered {
        self.columns
            .get(column.index())
            .cloned()
            .ok_or_else(|| format!("column {column} is not among the input's"))
    }

    fn binary(&self, binary: &BinaryExpr, data_type: Type) -> Lowered {
        if *binary.op() == Operator::StringConcat {
            return self.function("||", &[binary.left(), binary.right()], data_type);
        }
        let op = binary_operator(*binary.op()).ok_or_else(|| format!("operator {} is not fused", binary.op()))?;
        let (left, right) = (self.part(binary.left())?, self.part(binary.right())?);
        if op == BinaryOperator::Or
            && let Some(list) = one_list(&left, &right)
        {
            return Ok(list);
        }
        Ok(Expr::binary(op, left, right, data_type))
    }

    fn cast(&self, operand: &Arc<dyn PhysicalExpr>, data_type: Type, safe: bool) -> Lowered {
        let operand = self.part(operand)?;
        // A parameter's text is the same in every layout of text.
        let same_text =
            matches!(operand.node, Node::Parameter(_)) && operand.data_type.is_text() && data_type.is_text();
        if operand.data_type == data_type || same_text {
            return Ok(Expr { data_type, ..operand });
        }
        Ok(Expr {
            node: Node::Cast {
                expr: Box::new(operand),
                safe,
            },
            data_type,
        })
    }

    fn case(&self, case: &CaseExpr) -> Result<Node, String> {
        let operand = case.expr().map(|operand| self.part(operand)).transpose()?;
        if let Some(operand) = &operand {
            written(operand, case.when_then_expr().len())?;
        }
        let mut branches = Vec::new();
        for (when, then) in case.when_then_expr() {
            let when = self.part(when)?;
            let condition = match &operand {
                None => when,
                Some(operand) => Expr::binary(BinaryOperator::Equal, operand.clone(), when, Type::Boolean),
            };
            branches.push((condition, self.part(then)?));
        }
        Ok(Node::Case {
            branches,
            otherwise: case.else_expr().map(|expr| self.boxed(expr)).transpose()?,
        })
    }

    fn in_list(&self, list: &InListExpr) -> Lowered {
        let expr = self.part(list.expr())?;
        let members: Vec<_> = list
            .list()
            .iter()
            .map(|member| self.part(member))
            .collect::<Result<_, _>>()?;
        if members.iter().all(is_constant) {
            return Ok(Expr {
                node: Node::InList {
                    expr: Box::new(expr),
                    list: members,
                    negated: list.negated(),
                },
                data_type: Type::Boolean,
            });
        }
        written(&expr, members.len())?;
        let equal = members
            .into_iter()
            .map(|member| Expr::binary(BinaryOperator::Equal, expr.clone(), member, Type::Boolean))
            .reduce(|left, right| Expr::binary(BinaryOperator::Or, left, right, Type::Boolean))
            .ok_or("an empty IN list")?;
        Ok(if list.negated() {
            Expr {
                node: Node::Not(Box::new(equal)),
                data_type: Type::Boolean,
            }
        } else {
            equal
        })
    }

    fn like(&self, like: &LikeExpr) -> Result<Node, String> {
        let pattern = self.part(like.pattern())?;
        if !is_constant(&pattern) {
            return Err("LIKE with a pattern that is not constant is not fused".to_owned());
        }
        Ok(Node::Like {
            expr: self.boxed(like.expr())?,
            pattern: Box::new(pattern),
            negated: like.negated(),
            case_insensitive: like.case_insensitive(),
        })
    }

    fn call(&self, expr: &Arc<dyn PhysicalExpr>, call: &ScalarFunctionExpr, data_type: Type) -> Lowered {
        match (call.fun().name(), call.args()) {
            (PARAMETER_FUNCTION, [position, ..]) => return self.parameter(call.fun(), position, data_type),
            ("date_part", [part, operand]) => {
                if let Some(extract) = self.extract(part, operand, &data_type)? {
                    return Ok(extract);
                }
            }
            ("coalesce", [_, ..]) => return self.coalesce(call.args(), data_type),
            ("nullif", [value, other]) => {
                let (value, other) = (self.part(value)?, self.part(other)?);
                written(&value, 2)?;
                let equal = Expr::binary(BinaryOperator::Equal, value.clone(), other, Type::Boolean);
                let null = Expr::literal(Value::Null, data_type.clone());
                return Ok(Expr {
                    node: Node::Case {
                        branches: vec![(equal, null)],
                        otherwise: Some(Box::new(value)),
                    },
                    data_type,
                });
            }
            _ => {}
        }
        if let Ok(lowered) = self.function(
            call.fun().name(),
            &call.args().iter().collect::<Vec<_>>(),
            data_type.clone(),
        ) {
            return Ok(lowered);
        }
        host::pure_function(call)?;
        let args = call
            .args()
            .iter()
            .map(|arg| {
                if arg.is::<Literal>() {
                    return Ok(None);
                }
                self.part(arg).map(Some)
            })
            .collect::<Result<Vec<_>, String>>()?;
        host::call(expr, args, data_type)
    }

    /// A call of one of the contract's functions.
    fn function(&self, name: &str, args: &[&Arc<dyn PhysicalExpr>], data_type: Type) -> Lowered {
        let args = args.iter().map(|arg| self.part(arg)).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> = args.iter().map(|arg| arg.data_type.clone()).collect();
        let function = Function::named(name, &types, &data_type).ok_or_else(|| format!("{name} is not fused"))?;
        Ok(Expr::call(function, args, data_type))
    }

    fn parameter(&self, function: &ScalarUDF, position: &Arc<dyn PhysicalExpr>, data_type: Type) -> Lowered {
        let position = match position.downcast_ref::<Literal>().map(Literal::value) {
            Some(ScalarValue::Int64(Some(position))) => usize::try_from(*position).ok(),
            Some(ScalarValue::UInt64(Some(position))) => usize::try_from(*position).ok(),
            _ => None,
        };
        let position = position.ok_or("a parameter without position")?;
        let mut parameters = self.parameters.borrow_mut();
        if parameters.types.len() <= position {
            parameters.types.resize(position + 1, Type::Null);
        }
        parameters.types[position] = data_type.clone();
        if let Some(values) = ParameterFunction::values_of(function) {
            parameters.values = values;
        }
        Ok(Expr {
            node: Node::Parameter(position),
            data_type,
        })
    }

    /// EXTRACT, when the part and the operand are among those that fragments know.
    fn extract(
        &self,
        part: &Arc<dyn PhysicalExpr>,
        operand: &Arc<dyn PhysicalExpr>,
        data_type: &Type,
    ) -> Result<Option<Expr>, String> {
        let part = part
            .downcast_ref::<Literal>()
            .and_then(|part| part.value().try_as_str().flatten())
            .and_then(date_part);
        let Some(part) = part.filter(|_| *data_type == Type::Int32) else {
            return Ok(None);
        };
        let operand = self.part(operand)?;
        let known = match &operand.data_type {
            Type::Date32 => !matches!(part, DatePart::Hour | DatePart::Minute | DatePart::Second),
            Type::Timestamp { zone, .. } => zone.is_none(),
            _ => false,
        };
        Ok(known.then(|| Expr {
            node: Node::Extract {
                part,
                expr: Box::new(operand),
            },
            data_type: Type::Int32,
        }))
    }

    fn coalesce(&self, args: &[Arc<dyn PhysicalExpr>], data_type: Type) -> Lowered {
        let mut args = args.iter().map(|arg| self.part(arg)).collect::<Result<Vec<_>, _>>()?;
        let last = args.pop().map(Box::new);
        args.iter().try_for_each(|arg| written(arg, 2))?;
        let branches = args
            .into_iter()
            .map(|arg| {
                let present = Expr {
                    node: Node::IsNotNull(Box::new(arg.clone())),
                    data_type: Type::Boolean,
                };
                (present, arg)
            })
            .collect::<Vec<_>>();
        match (branches.is_empty(), last) {
            (true, Some(only)) => Ok(*only),
            (_, otherwise) => Ok(Expr {
                node: Node::Case { branches, otherwise },
                data_type,
            }),
        }
    }
}

/// Nodes of an expression and its copies, where it has to be written several times.
const COPIED_NODES_MAX: usize = 500;

/// Refuses copies of an expression so large that copies of copies would be without bounds.
fn written(expr: &Expr, times: usize) -> Result<(), String> {
    let mut nodes = 0;
    expr.visit(&mut |_| nodes += 1);
    if nodes > 1 && nodes * times > COPIED_NODES_MAX {
        return Err(format!("an operand of {nodes} parts would be evaluated {times} times"));
    }
    Ok(())
}

/// `a = 1 OR a IN (2, 3)` as `a IN (1, 2, 3)`.
fn one_list(left: &Expr, right: &Expr) -> Option<Expr> {
    let (operand, mut list) = membership(left)?;
    let (other, more) = membership(right)?;
    if operand != other {
        return None;
    }
    list.extend(more);
    Some(Expr {
        node: Node::InList {
            expr: Box::new(operand.clone()),
            list: list.into_iter().cloned().collect(),
            negated: false,
        },
        data_type: Type::Boolean,
    })
}

/// An operand and the constants of its type that it is compared with for equality.
fn membership(expr: &Expr) -> Option<(&Expr, Vec<&Expr>)> {
    match &expr.node {
        Node::Binary {
            op: BinaryOperator::Equal,
            left,
            right,
        } if is_constant(right) && left.data_type == right.data_type => Some((left, vec![right])),
        Node::InList {
            expr,
            list,
            negated: false,
        } if list.iter().all(|member| member.data_type == expr.data_type) => Some((expr, list.iter().collect())),
        _ => None,
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr.node, Node::Literal(_) | Node::Parameter(_))
}

fn date_part(text: &str) -> Option<DatePart> {
    let text = text.trim_matches(['\'', '"']).to_lowercase();
    Some(match text.as_str() {
        "year" | "years" | "y" | "yr" | "yrs" => DatePart::Year,
        "quarter" | "qtr" => DatePart::Quarter,
        "month" | "months" | "mon" | "mons" => DatePart::Month,
        "week" | "weeks" | "w" => DatePart::Week,
        "day" | "days" | "d" => DatePart::Day,
        "dow" => DatePart::DayOfWeek,
        "doy" => DatePart::DayOfYear,
        "hour" | "hours" | "h" | "hr" | "hrs" => DatePart::Hour,
        "minute" | "minutes" | "m" | "min" | "mins" => DatePart::Minute,
        "second" | "seconds" | "s" | "sec" | "secs" => DatePart::Second,
        _ => return None,
    })
}

fn binary_operator(op: Operator) -> Option<BinaryOperator> {
    Some(match op {
        Operator::Plus => BinaryOperator::Add,
        Operator::Minus => BinaryOperator::Subtract,
        Operator::Multiply => BinaryOperator::Multiply,
        Operator::Divide => BinaryOperator::Divide,
        Operator::Modulo => BinaryOperator::Remainder,
        Operator::Eq => BinaryOperator::Equal,
        Operator::NotEq => BinaryOperator::NotEqual,
        Operator::Lt => BinaryOperator::Less,
        Operator::LtEq => BinaryOperator::LessOrEqual,
        Operator::Gt => BinaryOperator::Greater,
        Operator::GtEq => BinaryOperator::GreaterOrEqual,
        Operator::IsDistinctFrom => BinaryOperator::Distinct,
        Operator::IsNotDistinctFrom => BinaryOperator::NotDistinct,
        Operator::And => BinaryOperator::And,
        Operator::Or => BinaryOperator::Or,
        Operator::BitwiseAnd => BinaryOperator::BitAnd,
        Operator::BitwiseOr => BinaryOperator::BitOr,
        Operator::BitwiseXor => BinaryOperator::BitXor,
        _ => return None,
    })
}

fn lower_literal(value: &ScalarValue) -> Lowered {
    let data_type = Type::from_arrow(&value.data_type())?;
    Ok(Expr::literal(lower_value(value)?, data_type))
}

fn lower_value(value: &ScalarValue) -> Result<Value, String> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let bytes = |bytes: &[u8]| Value::Bytes(Arc::from(bytes));
    Ok(match value {
        ScalarValue::Boolean(Some(value)) => Value::Boolean(*value),
        ScalarValue::Int8(Some(value)) => Value::Int((*value).into()),
        ScalarValue::Int16(Some(value)) => Value::Int((*value).into()),
        ScalarValue::Int32(Some(value))
        | ScalarValue::Date32(Some(value))
        | ScalarValue::Time32Second(Some(value))
        | ScalarValue::Time32Millisecond(Some(value)) => Value::Int((*value).into()),
        ScalarValue::Int64(Some(value))
        | ScalarValue::Time64Microsecond(Some(value))
        | ScalarValue::Time64Nanosecond(Some(value))
        | ScalarValue::TimestampSecond(Some(value), _)
        | ScalarValue::TimestampMillisecond(Some(value), _)
        | ScalarValue::TimestampMicrosecond(Some(value), _)
        | ScalarValue::TimestampNanosecond(Some(value), _) => Value::Int((*value).into()),
        ScalarValue::UInt8(Some(value)) => Value::Int((*value).into()),
        ScalarValue::UInt16(Some(value)) => Value::Int((*value).into()),
        ScalarValue::UInt32(Some(value)) => Value::Int((*value).into()),
        ScalarValue::UInt64(Some(value)) => Value::Int((*value).into()),
        ScalarValue::Decimal128(Some(value), _, _) => Value::Int(*value),
        ScalarValue::Float32(Some(value)) => Value::Float((*value).into()),
        ScalarValue::Float64(Some(value)) => Value::Float(*value),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            bytes(text.as_bytes())
        }
        ScalarValue::Binary(Some(value))
        | ScalarValue::LargeBinary(Some(value))
        | ScalarValue::BinaryView(Some(value)) => bytes(value),
        ScalarValue::IntervalYearMonth(Some(months)) => Value::Interval(Interval {
            months: *months,
            ..Interval::default()
        }),
        ScalarValue::IntervalDayTime(Some(value)) => Value::Interval(Interval {
            days: value.days,
            nanoseconds: i64::from(value.milliseconds) * 1_000_000,
            ..Interval::default()
        }),
        ScalarValue::IntervalMonthDayNano(Some(value)) => Value::Interval(Interval {
            months: value.months,
            days: value.days,
            nanoseconds: value.nanoseconds,
        }),
        other => return Err(format!("constants of type {} are not fused", other.data_type())),
    })
}

/// An expression of the type that an Arrow type stands for.
pub(super) fn fused_type(data_type: &DataType) -> Result<Type, String> {
    Type::from_arrow(data_type)
}

/// True when evaluating it can't fail, whatever the row.
pub(super) fn is_infallible(expr: &Expr) -> bool {
    let itself = match &expr.node {
        Node::Binary { op, .. } => !matches!(
            op,
            BinaryOperator::Add
                | BinaryOperator::Subtract
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Remainder
        ),
        Node::Negate(_) | Node::Host { .. } => false,
        Node::Cast { safe, .. } => *safe,
        Node::Function { function, args } => !function.may_fail(args),
        _ => true,
    };
    itself && expr.children().into_iter().all(is_infallible)
}

/// What evaluating it costs, roughly; only for putting the cheap first.
pub(super) fn weight(expr: &Expr) -> usize {
    let itself = match &expr.node {
        Node::Column(_) if expr.data_type.is_bytes() => 4,
        Node::Column(_) => 2,
        Node::Literal(_) | Node::Parameter(_) => 0,
        Node::InList { list, .. } => 1 + list.len() / 4,
        Node::Like { .. } => 20,
        Node::Function { .. } => 8,
        Node::Host { .. } => 50,
        Node::Binary {
            op: BinaryOperator::Equal | BinaryOperator::NotDistinct,
            ..
        } => 0,
        _ => 1,
    };
    itself + expr.children().into_iter().map(weight).sum::<usize>()
}
