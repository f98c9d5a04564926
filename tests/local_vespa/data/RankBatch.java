import com.yahoo.searchlib.rankingexpression.RankingExpression;
import com.yahoo.searchlib.rankingexpression.evaluation.MapContext;
import com.yahoo.searchlib.rankingexpression.evaluation.Value;
import com.yahoo.tensor.Tensor;

import java.nio.charset.StandardCharsets;
import java.util.Scanner;

/**
 * Vespa's own evaluator over many expressions: a line `name TAB tensor` defines a value, a line `TAB expression` is
 * answered by its tensor, or by `ERROR reason`. Used by make_ranking_cases.py.
 */
public class RankBatch {
    public static void main(String[] arguments) {
        MapContext context = new MapContext();
        Scanner in = new Scanner(System.in, StandardCharsets.UTF_8);
        while (in.hasNextLine()) {
            String[] line = in.nextLine().split("\t", 2);
            if (!line[0].isEmpty()) {
                context.put(line[0], Value.of(Tensor.from(line[1])));
                continue;
            }
            try {
                Tensor found = new RankingExpression(line[1]).evaluate(context).asTensor();
                System.out.println(found);
            } catch (Exception e) {
                System.out.println("ERROR " + String.valueOf(e.getMessage()).replace('\n', ' '));
            }
        }
    }
}
