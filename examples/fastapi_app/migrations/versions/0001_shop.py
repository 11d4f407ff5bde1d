"""The tables of the shop, and the first version of the tables of the jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.upgrade_oban(version=1)
    products = op.create_table(
        "products",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.Column("stock", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        sa.CheckConstraint("stock >= 0", name=op.f("ck_products_stock")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("product_id", sa.Integer, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("total", sa.Numeric(10, 2), nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column(
            "placed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("paid_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_orders_product_id_products")
        ),
    )
    # The pages look for the jobs of an order. Upgrades keep an index that you add to the table.
    op.create_index(
        "shop_jobs_args_index",
        "oban_jobs",
        [sa.text("args jsonb_path_ops")],
        postgresql_using="gin",
    )
    op.bulk_insert(
        products,
        [
            {"name": "teapot", "price": "19.90", "stock": 100},
            {"name": "cup", "price": "4.50", "stock": 1000},
            {"name": "samovar", "price": "249.00", "stock": 1},
        ],
    )


def downgrade() -> None:
    op.drop_table("orders")
    op.drop_table("products")
    op.downgrade_oban(version=0)
